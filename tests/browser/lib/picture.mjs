// A film for the fake camera that is hard to encode. Chromium's own test picture is so simple that no
// encoder ever reaches its bitrate, and then no line is too narrow.

import { mkdir, open, rename, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../../target/browser-media/', import.meta.url));
/** Two seconds of film, which the camera repeats. */
const SECONDS = 2;
/** How much each point flickers, of 256: it is this that costs bits. */
const FLICKER = 40;

/** The path of a YUV4MPEG2 file of that size and rate; made at the first call and kept. */
export async function busyPicture({ width, height, fps }) {
  const [w, h] = [Number(width), Number(height)];
  const path = `${folder}busy-${w}x${h}-${fps}-${FLICKER}.y4m`;
  if (await stat(path).catch(() => null)) return path;
  await mkdir(folder, { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  const file = await open(unfinished, 'w');
  await file.write(`YUV4MPEG2 W${w} H${h} F${fps}:1 Ip A1:1 C420jpeg\n`);
  const noise = noiseSource(1);
  for (let frame = 0; frame < SECONDS * Number(fps); frame += 1) {
    await file.write('FRAME\n');
    await file.write(picture(w, h, frame, noise));
  }
  await file.close();
  await rename(unfinished, path);
  return path;
}

// Bars that wander, under a flicker; the colours stand still.
function picture(width, height, frame, noise) {
  const brightness = width * height;
  const bytes = Buffer.alloc(brightness * 3 / 2, 128);
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 1) {
      const bar = ((x + frame * 4) >> 5) + ((y + frame * 2) >> 5) & 1 ? 160 : 60;
      bytes[at] = bar + (noise() * FLICKER >> 8);
    }
  }
  return bytes;
}

// The same film on every machine (xorshift, Marsaglia 2003): 0 to 255.
function noiseSource(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state & 255;
  };
}
