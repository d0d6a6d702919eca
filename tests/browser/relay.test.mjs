// A browser behind tools/impair: its media really takes the line, and the other's does not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openBehind, startRelay } from './lib/relay.mjs';
import { flowing } from './lib/samples.mjs';
import { setStage } from './lib/stage.mjs';
import { until } from './lib/until.mjs';

const CAMERA = { room: 'line', width: '320', height: '240', fps: '15', simulcast: '0', join: '1' };

const stage = setStage({ WORKERS: '2' });

test('a call with one behind a line', { timeout: 120_000 }, async (t) => {
  const { browser, server } = stage;
  const relay = await startRelay(server, { up: 'delay=30ms', down: 'delay=30ms' });
  const near = await openBehind(null, browser, server, { ...CAMERA, peer: 'near' });
  const far = await openBehind(relay, browser, server, { ...CAMERA, peer: 'far' });
  t.after(() => Promise.all([near, far].map(({ context }) => context.close())));
  await flowing('near', near, { audio: 1, video: 1 });
  await flowing('far', far, { audio: 1, video: 1 });

  const trips = await until('the round trips are measured', async () => {
    const both = await Promise.all([roundTrips(near), roundTrips(far)]);
    return both.flat().length === 4 && both;
  });
  t.diagnostic(`round trips near and far, s: ${JSON.stringify(trips)}`);
  // Of the line's 60 ms; around it there would be one or two.
  assert.ok(trips[1].every((seconds) => seconds > 0.05), 'no path around the line');

  // Its two transports are two clients; what they sent and received came through.
  const stats = await relay.stop();
  assert.equal(stats.flows, 2);
  for (const way of ['up', 'down']) {
    assert.ok(stats.total[way].delivered.packets > 0, way);
    assert.equal(stats.total[way].dropped.queue.packets, 0, way);
  }
  for (const { errors } of [near, far]) assert.deepEqual(errors, []);
});

// Of the page's two transports, s; none before the first answer to a check. Chromium counts whole milliseconds: near a
// fast server there is a 0.
function roundTrips(tab) {
  return tab.page.evaluate(async () => {
    const { send, recv } = globalThis.shardcast.transports;
    const trips = [];
    for (const transport of [send, await recv]) {
      const isAnswered = ({ type, nominated, responsesReceived }) => type === 'candidate-pair' && nominated && responsesReceived > 0;
      const pairs = [...(await transport.getStats()).values()].filter(isAnswered);
      trips.push(...pairs.map(({ currentRoundTripTime }) => currentRoundTripTime));
    }
    return trips;
  });
}
