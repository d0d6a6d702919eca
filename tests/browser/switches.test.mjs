// Layers are switched up and down while Chromium decodes: without a decode error, and without asking the
// publisher for more key frames than there are switches. `figures.mjs switches` does it for a minute each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setStage } from './lib/stage.mjs';
import { LAYERED, switchingCall } from './lib/switches.mjs';

/** Each way up and down between three layers once. */
const SWITCHES = 6;

const stage = setStage({ WORKERS: '2' });

for (const codec of Object.keys(LAYERED)) {
  test(`${codec} ${LAYERED[codec]}`, { timeout: 120_000 }, async (t) => {
    const { browser, server } = stage;
    const seen = await switchingCall(browser, server, { codec, count: SWITCHES });
    t.diagnostic(JSON.stringify(seen));
    for (const { from, to, took, sent, height, changes, asked } of seen.switches) {
      const what = `from layer ${from} to ${to}`;
      assert.ok(Math.abs(height - seen.heights[sent]) <= 1, `${what}: layer ${sent} is sent, ${height} lines are seen`);
      // Whoever waits for a second asks again.
      const most = Math.max(1, changes) + Math.floor((took ?? 0) / 1000);
      assert.ok(asked <= most, `${what}: ${asked} key frames asked for ${changes} switches`);
    }
    const fulfilled = seen.switches.filter(({ took }) => took !== null);
    assert.ok(fulfilled.some(({ from, to }) => to > from), 'it goes up');
    assert.ok(fulfilled.some(({ from, to }) => to < from), 'it goes down');
    assert.equal(seen.receiversKeyFrameRequests, 0, 'everything can be decoded');
    assert.ok(seen.framesDecoded > SWITCHES, 'frames are decoded all the time');
    assert.deepEqual(seen.errors, []);
    server.assertAlive();
  });
}
