// A shard fails under a call. Its peers see and hear each other again within seconds, without anybody
// pressing anything; a call on the other shard loses no packet.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { after, before, test } from 'node:test';
import { hasGrown, launchChromium, openDemo, received, receivedWhen } from './lib/chromium.mjs';
import { startServer } from './lib/server.mjs';
import { until } from './lib/until.mjs';

const CAMERA = { width: '320', height: '240', fps: '15', simulcast: '0', join: '1' };
// Each joins the shard that carries least, so the rooms lie on one shard each.
const PEERS = [['hit', 'ada'], ['spared', 'bob'], ['hit', 'cleo'], ['spared', 'dan']];
// To the first shard's port. Known to builds for tests alone: see src/shard/hooks.rs.
const FAIL = Buffer.from('\xffshardcast-test: fail', 'latin1');
// How long it may take until everybody sees and hears the others again.
const BACK_WITHIN = 5000;

let browser;
let server;
before(async () => {
  server = await startServer({ WORKERS: '2' });
  browser = await launchChromium();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test('a shard fails and works again', { timeout: 180_000 }, async (t) => {
  const tabs = new Map();
  for (const [room, peer] of PEERS) {
    const tab = await openDemo(browser, server, { ...CAMERA, room, peer });
    tabs.set(peer, tab);
    await until(`${peer} sends`, async () =>
      (await tab.page.evaluate(() => globalThis.shardcast.producers.size)) === 2);
  }
  const [hit, spared] = ['hit', 'spared'].map((room) =>
    PEERS.filter(([of]) => of === room).map(([, peer]) => tabs.get(peer)));
  for (const tab of tabs.values()) await flows('media flows', tab, new Set());
  const untouched = await Promise.all(spared.map(received));

  const old = new Set((await Promise.all(hit.map(received))).flat().map(({ id }) => id));
  const begun = performance.now();
  await send(FAIL, Number(server.settings.RTC_MIN_PORT));
  await Promise.all(hit.map((tab) => flows('media flows again', tab, old)));
  const took = Math.round(performance.now() - begun);
  t.diagnostic(`everybody is back after ${took} ms`);
  assert.ok(took < BACK_WITHIN, `${took} ms`);
  for (const { notifications } of hit) {
    const closed = notifications.filter(({ method }) => method === 'transportClosed');
    assert.deepEqual(closed.map(({ data }) => data.reason), ['shardFailed', 'shardFailed']);
  }

  for (const [index, tab] of spared.entries()) {
    const lines = await received(tab);
    assert.deepEqual(lines.map(({ id }) => id), untouched[index].map(({ id }) => id), 'the same consumers');
    assert.ok(lines.every((line, at) => hasGrown(line, untouched[index][at])), 'they go on');
    assert.deepEqual(lines.map(({ packetsLost }) => packetsLost), [0, 0], 'nothing is lost');
    assert.ok(tab.notifications.every(({ method }) => method !== 'transportClosed'));
  }
  for (const [peer, { errors }] of tabs) assert.deepEqual(errors, [], `exceptions in ${peer}'s page`);
  server.assertAlive();
});

// Audio and video of the other one arrive, on other consumers than these.
async function flows(what, tab, old) {
  const before = await receivedWhen(what, tab, (lines) =>
    lines.length === 2 && lines.every(({ id, packetsReceived }) => !old.has(id) && packetsReceived > 0));
  return receivedWhen(what, tab, (lines) =>
    lines.every((line) => {
      const then = before.find(({ id }) => id === line.id);
      const decodes = line.kind === 'audio' || line.framesDecoded > then?.framesDecoded;
      return then && decodes && line.packetsReceived > then.packetsReceived;
    }));
}

function send(datagram, port) {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.send(datagram, port, '127.0.0.1', (error) => {
      socket.close();
      if (error) reject(error);
      else resolve();
    });
  });
}
