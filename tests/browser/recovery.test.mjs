// A shard fails under a call. Its peers see and hear each other again, without anybody pressing anything; a call on
// the other shard goes on, and of its packets the server loses none.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { hasGrown, openDemo, received, receivedWhen } from './lib/chromium.mjs';
import { setStage } from './lib/stage.mjs';
import { until } from './lib/until.mjs';

const CAMERA = { width: '320', height: '240', fps: '15', simulcast: '0', join: '1' };
// Each joins the shard that carries least, so the rooms lie on one shard each.
const PEERS = [['hit', 'ada'], ['spared', 'bob'], ['hit', 'cleo'], ['spared', 'dan']];
// To the first shard's port. Known to builds for tests alone: see src/shard/hooks.rs.
const FAIL = Buffer.from('\xffshardcast-test: fail', 'latin1');
// How long things take depends on the machine, and is measured elsewhere (docs/performance.md).
const PATIENCE = { timeout: 120_000 };

const stage = setStage({ WORKERS: '2' });

test('a shard fails and works again', { timeout: 600_000 }, async (t) => {
  const { browser, server } = stage;
  const tabs = new Map();
  for (const [room, peer] of PEERS) {
    const tab = await openDemo(browser, server, { ...CAMERA, room, peer });
    tabs.set(peer, tab);
    await until(`${peer} sends`, async () =>
      (await tab.page.evaluate(() => globalThis.shardcast.producers.size)) === 2, PATIENCE);
  }
  const [hit, spared] = ['hit', 'spared'].map((room) => PEERS.filter(([of]) => of === room).map(([, peer]) => peer));
  for (const [peer, tab] of tabs) await flows(`media flows to ${peer}`, tab, new Set());
  const doomed = new Map();
  for (const peer of hit) doomed.set(peer, await transportsOf(tabs.get(peer)));
  const untouched = new Map();
  for (const peer of spared) {
    const tab = tabs.get(peer);
    untouched.set(peer, { lines: await received(tab), kept: await keptBack(tab) });
  }
  const sending = await failedSends(server);
  const [failing, other] = [0, 1].map((shard) => Number(server.settings.RTC_MIN_PORT) + shard);
  const overflowed = overflows(other);

  const old = new Set((await Promise.all(hit.map((peer) => received(tabs.get(peer))))).flat().map(({ id }) => id));
  const begun = performance.now();
  await send(FAIL, failing);
  await Promise.all(hit.map((peer) => flows(`media flows to ${peer} again`, tabs.get(peer), old)));
  t.diagnostic(`everybody is back after ${Math.round(performance.now() - begun)} ms`);

  for (const peer of hit) {
    const expected = doomed.get(peer);
    await until(`${peer} is told that its transports ${expected} are closed`, () =>
      expected.every((id) => failures(tabs.get(peer)).includes(id)), PATIENCE);
    assert.deepEqual(failures(tabs.get(peer)).sort(), expected, `${peer} is told once of each transport, and of no other`);
  }
  for (const peer of spared) {
    const [tab, { lines: then, kept }] = [tabs.get(peer), untouched.get(peer)];
    const lines = await receivedWhen(`${peer} goes on to receive on the same consumers`, tab, (now) =>
      now.length === then.length && now.every((line, at) => line.id === then[at].id && hasGrown(line, then[at])), PATIENCE);
    assert.deepEqual(failures(tab), [], `${peer}, on the other shard, is told of a failure`);
    assert.deepEqual(await keptBack(tab), kept, `the server did not forward to ${peer} all that it should have`);
    // A browser on a machine short of CPU loses packets by itself: at its own socket, or on their way to that.
    const lost = lines.map((line, at) => `${line.packetsLost - then[at].packetsLost} of ${line.kind}`);
    t.diagnostic(`${peer} misses ${lost.join(' and ')}`);
  }
  t.diagnostic(`the other shard had no room for ${overflows(other) - overflowed} datagrams`);
  assert.deepEqual(await failedSends(server), sending, 'the kernel refused datagrams of the server');
  for (const [peer, { errors }] of tabs) assert.deepEqual(errors, [], `exceptions in ${peer}'s page`);
  server.assertAlive();
});

// Audio and video of the other one arrive, on other consumers than these.
async function flows(what, tab, old) {
  let before = [];
  return receivedWhen(what, tab, (lines) => {
    const isThere = ({ id, packetsReceived }) => !old.has(id) && packetsReceived > 0;
    const compared = lines.map((line) => [line, before.find(({ id }) => id === line.id)]);
    if (lines.length !== 2 || !lines.every(isThere) || compared.some(([, then]) => !then)) {
      before = lines;
      return false;
    }
    return compared.every(([line, then]) => line.packetsReceived > then.packetsReceived &&
      (line.kind === 'audio' || line.framesDecoded > then.framesDecoded));
  }, PATIENCE);
}

// The ids of the transports that a page uses, in order.
async function transportsOf(tab) {
  const ids = await tab.page.evaluate(async () => {
    const { send, recv } = globalThis.shardcast.transports;
    return [(await send).id, (await recv).id];
  });
  return ids.sort();
}

// The transports of which a page was told that they are closed since their shard failed.
function failures(tab) {
  return tab.notifications
    .filter(({ method, data }) => method === 'transportClosed' && data.reason === 'shardFailed')
    .map(({ data }) => data.transportId);
}

// For each consumer, how many packets the server did not forward to it that it should have, by reason.
function keptBack(tab) {
  return until('the server tells its statistics', () => tab.page.evaluate(async () => {
    const { call, consumers } = globalThis.shardcast;
    const ask = (consumerId) => call.request('getConsumerStats', { consumerId });
    const answers = await Promise.all([...consumers.keys()].map(ask));
    return answers.map((answer) => (answer.stats ?? answer)[0].reasons.drop ?? {});
  }), PATIENCE);
}

// Datagrams that the server could not send, as its metrics tell them: one line for each shard and reason. Those of the
// shard that failed are counted anew.
async function failedSends({ url }) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return text.split('\n').filter((line) => /^shardcast_drops_total\{.*shard="1".*stage="send"/.test(line));
}

// Datagrams for which the sockets of a port had no room (proc(5), `net/udp`).
function overflows(port) {
  const [header, ...lines] = readFileSync('/proc/net/udp', 'utf8').trim().split('\n').map((line) => line.trim().split(/\s+/));
  assert.deepEqual([header[1], header.at(-1)], ['local_address', 'drops']);
  const own = lines.filter((line) => Number.parseInt(line[1].split(':')[1], 16) === port);
  return own.reduce((sum, line) => sum + Number(line.at(-1)), 0);
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
