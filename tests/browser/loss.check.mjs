// Calls over bad lines: what is lost is repaired, and every receiver gets what its line carries. The figures
// that are asserted here are printed by figures.mjs.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  constantLine, decodedShare, droppingLine, launchBusyChromium, LOSSLESS, lossyCall,
} from './lib/scenarios.mjs';
import { startServer } from './lib/server.mjs';

/** Share of a lossless run's frames that must be decoded, by the loss each way. */
const DECODED = { '2%': 0.97, '10%': 0.85 };
/** Packets that may stay lost after repair, where the line loses 2 %. */
const RESIDUAL_LOSS = 0.001;
/** Audio that may be made up where the line loses 5 %. */
const CONCEALED = 0.03;
/** Seconds until the traffic fits a line that fell to 500 kbit/s. */
const FITS_WITHIN = 2;
const LONGEST_FREEZE = 1;
/** Seconds until the best layer is back on a line that rose to 5 Mbit/s. */
const TOP_WITHIN = 10;
const LINE = 1_000_000;
/** Where the estimate of a constant line must stay, as shares of its rate. */
const ESTIMATE = [0.80, 0.98];
/** 95th percentile of the queue's delay on a constant line, ms. */
const QUEUE_DELAY = 80;
/** What packets' headers and resent packets add to an encoding, at most, when asking whether it fits. */
const HEADROOM = 1.1;

let browser;
let server;
before(async () => {
  server = await startServer({ WORKERS: '1' });
  browser = await launchBusyChromium();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

describe('a line of 60 ms round trip', () => {
  let lossless;
  before(async () => { lossless = await lossyCall(browser, server, { loss: LOSSLESS }); });

  for (const [loss, least] of Object.entries(DECODED)) {
    test(`that loses ${loss} each way`, { timeout: 60_000 }, async (t) => {
      const figures = await lossyCall(browser, server, { loss });
      for (const way of ['down', 'up']) {
        const { video } = figures[way];
        t.diagnostic(`${way}: ${JSON.stringify(video)}`);
        const share = decodedShare(figures[way], lossless[way]);
        assert.ok(share >= least, `${way}: ${share} of a lossless run's frames`);
        if (loss === '2%') assert.ok(video.residualLoss < RESIDUAL_LOSS, `${way}: ${video.residualLoss} stay lost`);
      }
    });
  }

  test('audio, where it loses 5%', { timeout: 60_000 }, async (t) => {
    const figures = await lossyCall(browser, server, { loss: '5%', video: false });
    for (const way of ['down', 'up']) {
      const { audio } = figures[way];
      t.diagnostic(`${way}: ${JSON.stringify(audio)}`);
      assert.ok(audio.packetsReceived > 100, 'audio flows');
      assert.ok(audio.concealed < CONCEALED, `${way}: ${audio.concealed} made up`);
    }
  });
});

test('a line that falls from 5 Mbit/s to 500 kbit/s and rises again', { timeout: 120_000 }, async (t) => {
  const { fitsAfter, during, after, topAfter, good, sent } = await droppingLine(browser, server);
  t.diagnostic(JSON.stringify({ fitsAfter, topAfter, during, after, good, sent }));
  assert.ok(fitsAfter !== null && fitsAfter <= FITS_WITHIN, `the traffic fits after ${fitsAfter} s`);
  assert.ok(during.standstill <= LONGEST_FREEZE, `${during.standstill} s without a frame while the line is poor`);
  assert.ok(topAfter !== null && topAfter <= TOP_WITHIN, `the best layer is back after ${topAfter} s`);
  undisturbed(good, sent);
});

test('a line of 1 Mbit/s', { timeout: 120_000 }, async (t) => {
  const figures = await constantLine(browser, server, { rate: LINE });
  const { sent, poor, good, estimates, queueDelay } = figures;
  t.diagnostic(JSON.stringify(figures));
  assert.ok(estimates.length > 0, 'the server says its estimate');
  for (const [at, estimate] of estimates) {
    const share = estimate / LINE;
    assert.ok(share >= ESTIMATE[0] && share <= ESTIMATE[1], `${share} of the line after ${at} s`);
  }
  assert.ok(queueDelay.p95 < QUEUE_DELAY, `packets wait ${queueDelay.p95} ms`);
  const best = sent.findLast(({ bitrate }) => bitrate * HEADROOM <= LINE * ESTIMATE[0]);
  assert.deepEqual(poor.heights.map(([, height]) => height), [best.height], 'the best layer that fits, all the time');
  undisturbed(good, sent);
});

// The other watcher, whose line is good, sees the largest picture without a fault.
function undisturbed(good, sent) {
  assert.equal(good.packetsLost, 0);
  assert.deepEqual(good.heights.map(([, height]) => height), [sent.at(-1).height]);
  assert.ok(good.standstill <= LONGEST_FREEZE, `${good.standstill} s without a frame`);
}
