// What the page's address may ask for; the README lists the same parameters.

const query = new URLSearchParams(location.search);

// A random id for each tab and page load: two tabs of one browser are two participants.
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function number(name, fallback) {
  const value = Number(query.get(name));
  return Number.isFinite(value) && value > 0 ? value : fallback;
}

export const options = {
  // Everyone who opens the bare address meets in the same room.
  room: query.get('room') ?? 'lobby',
  name: query.get('name') ?? '',
  peerId: query.get('peer') ?? `web-${randomId()}`,
  // Behind the #, which browsers send to nobody; undefined where the server asks for none.
  token: new URLSearchParams(location.hash.slice(1)).get('token') ?? undefined,
  // vp8, vp9, h264 or av1.
  codec: (query.get('codec') ?? 'vp8').toLowerCase(),
  simulcast: query.get('simulcast') !== '0',
  // What the sender takes the line to carry at first, kbit/s.
  startBitrate: number('start', 1000),
  // The layers of vp9 and av1, such as L3T3_KEY.
  svc: query.get('svc') ?? '',
  // Start without asking for one of the devices.
  audio: query.get('audio') !== '0',
  video: query.get('video') !== '0',
  // What the camera is asked for: pixels and frames per second.
  width: number('width', 1280),
  height: number('height', 720),
  fps: number('fps', 30),
  // Skip the form.
  joinAtOnce: query.get('join') === '1',
};

/** The signaling address on the server that served this page. */
export function signalingUrl(room, peerId) {
  const url = new URL('/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.searchParams.set('roomId', room);
  url.searchParams.set('peerId', peerId);
  return url.href;
}
