// The page: form, buttons and tiles on one side, the call on the other.

import { Call } from './call.js';
import { openCamera, openMicrophone, openScreen } from './capture.js';
import { sample } from './figures.js';
import { options, signalingUrl } from './options.js';
import { receivedStats } from './stats.js';
import { Tiles } from './tiles.js';

const $ = (id) => document.getElementById(id);
const openers = { mic: openMicrophone, camera: () => openCamera(options), screen: openScreen };
const tiles = new Tiles($('tiles'), () => { $('unblock').hidden = false; });

// Milliseconds between two looks at the tiles whose statistics are open.
const INSPECT_EVERY = 1000;

let call = null;
// The open devices, by source. They belong to the page, so that a reconnect need not ask again.
const tracks = new Map();

$('room').value = options.room;
$('name').value = options.name;
$('lobby').addEventListener('submit', (event) => {
  event.preventDefault();
  join();
});
$('mic').addEventListener('click', () => toggleMicrophone().catch(showProblem));
for (const source of ['camera', 'screen']) {
  $(source).addEventListener('click', () => toggle(source).catch(showProblem));
}
$('leave').addEventListener('click', () => call?.leave());
$('unblock').addEventListener('click', () => {
  $('unblock').hidden = true;
  tiles.playAll();
});
// Closing the tab should free the place at once, not after a missed ping.
addEventListener('pagehide', () => call?.leave());

setInterval(inspect, INSPECT_EVERY);

if (options.joinAtOnce) join();

function join() {
  const room = $('room').value.trim();
  const name = $('name').value.trim();
  const { peerId, codec, simulcast, svc, startBitrate } = options;
  showProblem(null);
  $('lobby').hidden = true;
  $('controls').hidden = false;

  // The address then leads others into the same room.
  const here = new URL(location.href);
  here.searchParams.set('room', room);
  history.replaceState(null, '', here);

  const url = signalingUrl(room, peerId);
  call = new Call({ url, room, peerId, name: name || peerId, codec, simulcast, svc, startBitrate });
  listenTo(call);
  tiles.add(peerId, call.name, { own: true });
  call.join();
  if (options.audio) toggleMicrophone().catch(showProblem);
  if (options.video) toggle('camera').catch(showProblem);
}

function listenTo(call) {
  const on = (type, handler) => call.addEventListener(type, ({ detail }) => handler(detail));
  on('state', ({ state, text }) => {
    $('state').textContent = text;
    if (state === 'left') backToLobby();
  });
  on('problem', ({ text }) => showProblem(text));
  on('peerJoined', ({ peerId, name }) => tiles.add(peerId, name));
  on('peerLeft', ({ peerId }) => {
    tiles.remove(peerId, true);
    tiles.remove(peerId, false);
  });
  on('trackStarted', ({ peerId, source, track }) => {
    const screen = source === 'screen';
    if (screen) tiles.add(peerId, nameOf(peerId), { screen });
    tiles.attach(peerId, screen, track);
  });
  on('trackEnded', ({ peerId, source, track }) => {
    const screen = source === 'screen';
    if (screen) tiles.remove(peerId, true);
    else tiles.detach(peerId, false, track);
  });
  on('speaker', ({ peerId }) => tiles.setSpeaker(peerId));
  on('trackPaused', ({ peerId, source, kind, paused }) => {
    tiles.setPaused(peerId, source === 'screen', kind, paused);
  });
}

function nameOf(peerId) {
  return call.receiving?.nameOf(peerId) ?? peerId;
}

// -- own devices -------------------------------------------------------------------------------

// A muted microphone stays open: unmuting must be quick.
async function toggleMicrophone() {
  if (!tracks.has('mic')) return toggle('mic');
  const muted = $('mic').getAttribute('aria-pressed') === 'true';
  $('mic').setAttribute('aria-pressed', String(!muted));
  tiles.setPaused(call.peerId, false, 'audio', muted);
  return call.setPaused('mic', muted);
}

// Camera and screen are closed when they are switched off, so that the camera's light goes out.
async function toggle(source) {
  const button = $(source);
  if (tracks.has(source)) return stop(source);
  button.disabled = true;
  try {
    const track = await openers[source]();
    if (!call || call.state === 'left') return track.stop();
    tracks.set(source, track);
    button.setAttribute('aria-pressed', 'true');
    // Unplugged, or ended with the browser's own "stop sharing".
    track.addEventListener('ended', () => stop(source));
    showOwn(source, track);
    return await call.publish(source, track);
  } catch (error) {
    throw new Error(explain(source, error), { cause: error });
  } finally {
    button.disabled = false;
  }
}

async function stop(source) {
  const track = tracks.get(source);
  if (!track) return;
  tracks.delete(source);
  track.stop();
  $(source).setAttribute('aria-pressed', 'false');
  hideOwn(source, track);
  await call.unpublish(source);
}

function showOwn(source, track) {
  const screen = source === 'screen';
  if (screen) tiles.add(call.peerId, call.name, { own: true, screen });
  tiles.attach(call.peerId, screen, track);
}

function hideOwn(source, track) {
  if (source === 'screen') tiles.remove(call.peerId, true);
  else tiles.detach(call.peerId, false, track);
}

function explain(source, error) {
  const name = { mic: 'microphone', camera: 'camera', screen: 'screen' }[source];
  if (error.name === 'NotAllowedError') return `The ${name} was not allowed; you can still watch and listen.`;
  if (error.name === 'NotFoundError') return `There is no ${name}; you can still watch and listen.`;
  return `The ${name} cannot be used: ${error.message}`;
}

// -- page state --------------------------------------------------------------------------------

function backToLobby() {
  for (const track of tracks.values()) track.stop();
  tracks.clear();
  tiles.clear();
  for (const source of ['mic', 'camera', 'screen']) $(source).setAttribute('aria-pressed', 'false');
  $('controls').hidden = true;
  $('unblock').hidden = true;
  $('lobby').hidden = false;
}

// One look at a time for each tile: the server may take its time to answer.
function inspect() {
  for (const tile of call ? tiles.inspected : []) {
    const { panel } = tile;
    if (panel.busy) continue;
    panel.busy = true;
    sample(call, tile, panel.totals).then(({ figures, totals }) => {
      panel.totals = totals;
      panel.show(figures);
    }, () => {
      // The track ended while it was looked at; the next look finds another or none.
      panel.totals = null;
    }).finally(() => { panel.busy = false; });
  }
}

function showProblem(problem) {
  $('error').textContent = problem?.message ?? problem ?? '';
  $('error').hidden = !problem;
}

// For tests and for the curious: everything that the call is made of.
globalThis.shardcast = {
  options,
  get call() { return call; },
  get device() { return call?.device; },
  get producers() { return call?.producers ?? new Map(); },
  get consumers() { return call?.receiving?.consumers ?? new Map(); },
  get transports() {
    return { send: call?.sendTransport ?? null, recv: call?.receiving?.transport ?? null };
  },
  stats: () => receivedStats(globalThis.shardcast.consumers),
};
