// Layers are switched up and down while Chromium decodes: without a decode error, and without asking the
// publisher for more key frames than there are switches. `figures.mjs switches` does it for a minute each.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from './lib/chromium.mjs';
import { startServer } from './lib/server.mjs';
import { LAYERED, switchingCall } from './lib/switches.mjs';

/** Each way up and down between three layers once. */
const SWITCHES = 6;

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

for (const codec of Object.keys(LAYERED)) {
  test(`${codec} ${LAYERED[codec]}`, { timeout: 120_000 }, async (t) => {
    const seen = await switchingCall(browser, server, { codec, count: SWITCHES });
    t.diagnostic(JSON.stringify(seen));
    for (const { from, to, took, asked } of seen.switches) {
      assert.ok(took !== null, `from layer ${from} to ${to}: the picture has its size`);
      // Whoever waits for a second asks again.
      const most = 1 + Math.floor(took / 1000);
      assert.ok(asked <= most, `from layer ${from} to ${to}: ${asked} key frames asked`);
    }
    assert.equal(seen.receiversKeyFrameRequests, 0, 'everything can be decoded');
    assert.ok(seen.framesDecoded > SWITCHES, 'frames are decoded all the time');
    assert.deepEqual(seen.errors, []);
    server.assertAlive();
  });
}
