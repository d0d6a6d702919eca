// Three people in one room over two shards, for each codec and each I/O backend: everybody's audio and
// video arrives at everybody else, nothing is lost, and leaving is noticed.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { hasGrown, launchChromium, openDemo, received, receivedWhen } from './lib/chromium.mjs';
import { startServer } from './lib/server.mjs';
import { until } from './lib/until.mjs';

const PEERS = ['ada', 'bob', 'cleo'];
const CODECS = ['VP8', 'H264', 'VP9', 'AV1'];
// Software encoders three at a time: small pictures keep two cores from being the bottleneck.
const CAMERA = { width: '320', height: '240', fps: '15', simulcast: '0', join: '1' };

let browser;
before(async () => { browser = await launchChromium(); });
after(() => browser?.close());

for (const backend of ['uring', 'mmsg']) {
  describe(`IO_BACKEND=${backend}`, () => {
    let server;
    before(async () => { server = await startServer({ IO_BACKEND: backend, WORKERS: '2' }); });
    after(() => server?.stop());

    for (const codec of CODECS) {
      test(`three peers, ${codec}`, { timeout: 120_000 }, async (t) => {
        const room = `call-${codec.toLowerCase()}`;
        const tabs = new Map();
        t.after(() => Promise.all([...tabs.values()].map(({ context }) => context.close())));
        for (const [index, peer] of PEERS.entries()) {
          tabs.set(peer, await openDemo(browser, server, { ...CAMERA, room, peer, codec: codec.toLowerCase() }));
          await until('REST shows who is here', async () => {
            const truth = await server.roomTruth(room);
            return truth.peers.length === index + 1 && truth.peers.includes(peer);
          });
        }

        await everyoneReceivesTwoOthers(tabs, codec);
        // 3 peers send 2 producers each; each of them consumes the 4 of the others.
        assert.deepEqual(await server.roomTruth(room), { peers: PEERS, producers: 6, consumers: 12 });

        await leavingIsNoticed(tabs, server, room);
        for (const [peer, { errors }] of tabs) assert.deepEqual(errors, [], `exceptions in ${peer}'s page`);
        server.assertAlive();
      });
    }
  });
}

async function everyoneReceivesTwoOthers(tabs, codec) {
  for (const [peer, tab] of tabs) {
    const before = await receivedWhen(`${peer} receives audio and video of both others`, tab, (stats) =>
      stats.length === 4 && stats.every(({ packetsReceived }) => packetsReceived > 0));
    const sources = before.map(({ peerId, source }) => `${peerId} ${source}`).sort();
    const others = PEERS.filter((other) => other !== peer);
    assert.deepEqual(sources, others.flatMap((other) => [`${other} camera`, `${other} mic`]));

    const now = await receivedWhen(`frames and sound energy grow at ${peer}`, tab, (stats) =>
      stats.every((line) => hasGrown(line, before.find(({ id }) => id === line.id))));
    for (const line of now) {
      const what = `${peer} from ${line.peerId} ${line.source}`;
      assert.equal(line.packetsLost, 0, `packets lost: ${what}`);
      assert.equal(line.mimeType, line.kind === 'audio' ? 'audio/opus' : `video/${codec}`, what);
    }
  }
}

async function leavingIsNoticed(tabs, server, room) {
  const [staying, leaver] = [PEERS.slice(0, 2), PEERS[2]];
  const lost = new Map();
  for (const peer of staying) {
    const stats = await received(tabs.get(peer));
    lost.set(peer, stats.filter(({ peerId }) => peerId === leaver).map(({ id }) => id).sort());
  }
  await tabs.get(leaver).page.click('#leave');

  for (const peer of staying) {
    const { notifications } = tabs.get(peer);
    await until(`${peer} hears that ${leaver} left`, () =>
      notifications.some(({ method, data }) => method === 'peerLeft' && data.peerId === leaver));
    await until(`${peer}'s consumers of ${leaver} are closed`, () => {
      const closed = notifications.filter(({ method }) => method === 'consumerClosed');
      const ids = closed.map(({ data }) => data.consumerId).sort();
      return JSON.stringify(ids) === JSON.stringify(lost.get(peer));
    });
    await until(`${peer}'s page dropped them`, async () => (await received(tabs.get(peer))).length === 2);
  }
  await until('REST shows the two that stay', async () => {
    const truth = await server.roomTruth(room);
    return JSON.stringify(truth) === JSON.stringify({ peers: staying, producers: 4, consumers: 4 });
  });
}
