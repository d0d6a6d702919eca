// Opens cameras, microphones and screens, and says how each is to be encoded.

/** Opens the microphone; the browser's own echo cancelling is wanted, since two tabs share a room. */
export async function openMicrophone() {
  const stream = await devices().getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  return stream.getAudioTracks()[0];
}

/** Opens the camera near the wished size (pixels) and rate (frames per second). */
export async function openCamera({ width, height, fps }) {
  const stream = await devices().getUserMedia({
    video: { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps } },
  });
  return stream.getVideoTracks()[0];
}

/** Asks the user for a screen, window or tab. */
export async function openScreen() {
  const stream = await devices().getDisplayMedia({ video: { frameRate: { ideal: 15 } } });
  const track = stream.getVideoTracks()[0];
  // Text should stay sharp; it may move less smoothly for that.
  track.contentHint = 'detail';
  return track;
}

function devices() {
  // Browsers hide the devices from pages that came over plain http from another machine.
  if (!navigator.mediaDevices) {
    throw new Error('This page may use a camera only on http://localhost or over https.');
  }
  return navigator.mediaDevices;
}

// A quarter, a half and the full picture: three steps that a server can choose from per receiver.
// Temporal layers (L1T3) let it halve the frame rate too.
const SIMULCAST = [
  { rid: 'r0', scaleResolutionDownBy: 4, maxBitrate: 150_000, scalabilityMode: 'L1T3' },
  { rid: 'r1', scaleResolutionDownBy: 2, maxBitrate: 500_000, scalabilityMode: 'L1T3' },
  { rid: 'r2', scaleResolutionDownBy: 1, maxBitrate: 1_500_000, scalabilityMode: 'L1T3' },
];

/**
 * The `encodings` of mediasoup-client's `produce`, or undefined to let it choose. VP9 and AV1 carry their
 * layers inside one stream, of this scalability mode if there is one; browsers send one encoding for them.
 */
export function encodingsFor(source, { codec, simulcast, svc }) {
  if (source === 'mic') return undefined;
  if (source === 'screen') return [{ maxBitrate: 2_500_000 }];
  if (simulcast && (codec === 'vp8' || codec === 'h264')) return SIMULCAST;
  return [{ maxBitrate: 1_500_000, ...(svc && { scalabilityMode: svc }) }];
}
