// A microphone for Chromium that speaks without end: its own made-up one only beeps, which is no voice.

import { mkdir, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../../target/', import.meta.url));
const RATE = 48_000;
const SECONDS = 12;
/** Syllables per second, as people speak. */
const SYLLABLES = 4;
const PITCH = 140;

/** The argument that makes it Chromium's microphone. */
export async function voiceArgument() {
  const file = `${folder}voice.wav`;
  await mkdir(folder, { recursive: true });
  await writeFile(file, wav(speech()));
  return `--use-file-for-fake-audio-capture=${file}`;
}

// A harmonic tone that swells with each syllable, at a pitch and loudness that wander.
function speech() {
  const samples = new Int16Array(RATE * SECONDS);
  let phase = 0;
  for (let index = 0; index < samples.length; index += 1) {
    const second = index / RATE;
    phase += 2 * Math.PI * PITCH * (1 + 0.15 * Math.sin(2 * Math.PI * 0.7 * second)) / RATE;
    const swell = Math.max(0, Math.sin(2 * Math.PI * SYLLABLES / 2 * second)) ** 2
      + Math.max(0, Math.sin(2 * Math.PI * SYLLABLES / 2 * second + Math.PI)) ** 2;
    const phrase = 0.6 + 0.4 * Math.sin(2 * Math.PI * second / 3);
    let value = 0;
    for (let harmonic = 1; harmonic <= 12; harmonic += 1) value += Math.sin(harmonic * phase) / harmonic;
    samples[index] = Math.round(9000 * swell * phrase * value);
  }
  return samples;
}

function wav(samples) {
  const data = Buffer.from(samples.buffer);
  const header = Buffer.alloc(44);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + data.length, 4);
  header.write('WAVEfmt ', 8);
  // PCM, one channel, 16 bits.
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) header.writeUInt16LE(value, at);
  for (const [at, value] of [[16, 16], [24, RATE], [28, 2 * RATE], [40, data.length]]) header.writeUInt32LE(value, at);
  header.write('data', 36);
  return Buffer.concat([header, data]);
}
