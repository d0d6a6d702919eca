// Runs inside the namespace that firefox.test.mjs makes: `node firefox-call.mjs ANNOUNCED_IP`.
// Ends with 0 if both tabs received audio and VP8 video of each other.

import assert from 'node:assert/strict';
import { startFirefox } from './firefox.mjs';
import { startServer } from './server.mjs';
import { until } from './until.mjs';

const [announced] = process.argv.slice(2);
// The namespace is ours alone, so that any port is free.
const BIDI_PORT = 9222;
const PAGE = { room: 'fox', codec: 'vp8', simulcast: '0', width: '320', height: '240', fps: '15', join: '1' };

const server = await startServer({ ANNOUNCED_IP: announced, WORKERS: '2' });
const firefox = await startFirefox(BIDI_PORT);
try {
  console.log(firefox.version);
  const tabs = new Map();
  for (const peer of ['ada', 'bob']) {
    tabs.set(peer, await firefox.open(`${server.url}/?${new URLSearchParams({ ...PAGE, peer })}`));
  }
  for (const [peer, tab] of tabs) await receivesTheOther(peer, tab);
  const truth = await server.roomTruth('fox');
  assert.deepEqual(truth, { peers: ['ada', 'bob'], producers: 4, consumers: 4 });
} catch (error) {
  console.error(server.log);
  throw error;
} finally {
  await firefox.stop();
}
await server.stop();

async function receivesTheOther(peer, tab) {
  const stats = () => tab.evaluate('shardcast.stats()');
  let before;
  try {
    before = await until(`${peer} receives audio and video`, async () => {
      const lines = await stats();
      return lines.length === 2 && lines.every(({ packetsReceived }) => packetsReceived > 0) && lines;
    }, { timeout: 40_000 });
  } catch (error) {
    const page = await tab.evaluate('document.body.innerText');
    throw new Error(`${error.message}\nthe page says: ${page}`, { cause: error });
  }
  const now = await until(`frames and sound grow at ${peer}`, async () => {
    const lines = await stats();
    return lines.every((line) => {
      const old = before.find(({ id }) => id === line.id);
      return line.kind === 'audio'
        ? line.totalAudioEnergy > old.totalAudioEnergy
        : line.framesDecoded >= old.framesDecoded + 10;
    }) && lines;
  });
  for (const line of now) {
    assert.equal(line.packetsLost, 0, `${peer} lost packets of ${line.source}`);
    assert.equal(line.mimeType, line.kind === 'audio' ? 'audio/opus' : 'video/VP8');
    console.log(`${peer}: ${line.source} ${line.packetsReceived} packets, ${line.framesDecoded} frames`);
  }
}
