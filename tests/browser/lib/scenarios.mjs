// Calls over bad lines. Each scenario is played against a server and gives figures; who calls it judges them.

import { setTimeout as sleep } from 'node:timers/promises';
import { launchChromium } from './chromium.mjs';
import { busyPicture } from './picture.mjs';
import { openBehind, startRelay } from './relay.mjs';
import { between, flowing, samplesOf, sentFigures, startSampling, streamFigures } from './samples.mjs';
import { until } from './until.mjs';

/** One way, so that the round trip to the server is 60 ms. */
const DELAY = 'delay=30ms';
/** Encoders and bandwidth estimators get so long to settle before anything is measured, ms. */
const SETTLE = 5000;
const CAMERA = { width: '640', height: '480', fps: '20', join: '1' };
/** Cameras of simulcast calls: below it Chromium would not send three encodings. */
const LARGE = { ...CAMERA, width: '960', height: '540' };
/** What `lossyCall` is compared with. */
export const LOSSLESS = '0%';
const NO_CAMERA = { audio: '0', video: '0', join: '1' };

/** The browser that all scenarios want: its camera's picture keeps encoders at their bitrates. */
export async function launchBusyChromium() {
  return launchChromium([`--use-file-for-fake-video-capture=${await busyPicture({ ...LARGE })}`]);
}

/** Closes what a scenario opened, whatever happened in it. */
async function withCall(play) {
  const opened = [];
  try {
    return await play((thing) => { opened.push(thing); return thing; });
  } finally {
    for (const thing of opened.reverse()) await (thing.context ?? thing).close?.();
  }
}

/**
 * Two people call each other, one behind a line that loses `loss` (such as `2%`) each way at 60 ms round
 * trip. The figures are of both receivers: `down` is who sits behind the line (repaired by the server), `up`
 * the other one (repaired by the publisher behind the line).
 */
export function lossyCall(browser, server, { loss, seconds = 15, video = true, seed = 1 }) {
  return withCall(async (open) => {
    const room = `loss-${loss}-${video}-${seed}`;
    const settings = `${DELAY} loss=${loss}`;
    const relay = await startRelay(server, { up: settings, down: settings, seed });
    try {
      const query = { ...CAMERA, room, simulcast: '0', video: video ? '1' : '0' };
      const near = open(await openBehind(null, browser, server, { ...query, peer: 'near' }));
      const far = open(await openBehind(relay, browser, server, { ...query, peer: 'far' }));
      const streams = { audio: 1, video: video ? 1 : 0 };
      await flowing('near', near, streams);
      await flowing('far', far, streams);
      await Promise.all([startSampling(near), startSampling(far)]);
      await sleep(SETTLE);
      await relay.stats();
      const from = Date.now();
      await sleep(seconds * 1000);
      const to = Date.now();
      const line = (await relay.stats()).window;
      const figures = { line };
      for (const [way, receiver, sender] of [['down', far, near], ['up', near, far]]) {
        const samples = between(await samplesOf(receiver), from, to);
        figures[way] = { audio: streamFigures(samples, 'audio') };
        if (!video) continue;
        const [{ frames }] = sentFigures(between(await samplesOf(sender), from, to));
        figures[way].video = { ...streamFigures(samples, 'video'), framesSent: frames };
      }
      return figures;
    } finally {
      await relay.stop();
    }
  });
}

/** A publisher with three encodings, `poor` who watches behind a line, and `good` who watches without one. */
async function watchedCall(open, browser, server, room, relay) {
  const publisher = open(await openBehind(null, browser, server, { ...LARGE, room, peer: 'publisher' }));
  const good = open(await openBehind(null, browser, server, { ...NO_CAMERA, room, peer: 'good' }));
  const poor = open(await openBehind(relay, browser, server, { ...NO_CAMERA, room, peer: 'poor' }));
  await flowing('good', good, { audio: 1, video: 1 });
  await flowing('poor', poor, { audio: 1, video: 1 });
  await Promise.all([publisher, good, poor].map(startSampling));
  return { publisher, good, poor };
}

/**
 * The line of one of two watchers falls from 5 Mbit/s to 500 kbit/s and rises again. Times are seconds since
 * the change; null: never.
 */
export function droppingLine(browser, server, { poorSeconds = 12, goodSeconds = 15 } = {}) {
  return withCall(async (open) => {
    const relay = await startRelay(server, { up: DELAY, down: `${DELAY} rate=5M queue=300ms` });
    try {
      const { publisher, good, poor } = await watchedCall(open, browser, server, 'dropping', relay);
      await topLayer(publisher, good, poor);

      await relay.change('down rate=500k');
      const dropped = Date.now();
      const fitsAfter = await trafficFits(relay, 500_000, poorSeconds);
      await relay.change('down rate=5M');
      const risen = Date.now();
      await sleep(goodSeconds * 1000);
      const end = Date.now();

      const samples = await samplesOf(poor);
      const sent = sentFigures(between(await samplesOf(publisher), dropped, end));
      const after = streamFigures(between(samples, risen, end), 'video');
      return {
        sent,
        fitsAfter,
        during: streamFigures(between(samples, dropped, risen), 'video'),
        after,
        topAfter: reached(after.heights, sent.at(-1).height),
        good: streamFigures(between(await samplesOf(good), dropped, end), 'video'),
        estimates: estimates(between(samples, dropped, end)),
      };
    } finally {
      await relay.stop();
    }
  });
}

// Both see the largest encoding, or what they see after a while is all that there is.
async function topLayer(publisher, ...watchers) {
  const most = 15_000;
  const height = async (tab) => (await samplesOf(tab)).at(-1)?.inbound.find(({ kind }) => kind === 'video')?.frameHeight;
  await until('everybody sees the largest encoding', async () => {
    const outbound = (await samplesOf(publisher)).at(-1)?.outbound.filter(({ kind }) => kind === 'video') ?? [];
    const top = Math.max(...outbound.map(({ frameHeight }) => frameHeight ?? 0));
    const seen = await Promise.all(watchers.map(height));
    return top > 0 && outbound.length === 3 && seen.every((one) => one === top);
  }, { timeout: most });
  await sleep(SETTLE);
}

// When the server's traffic began to fit into the line for good, s.
async function trafficFits(relay, rate, seconds) {
  const begun = Date.now();
  let since = null;
  await relay.stats();
  while (Date.now() - begun < seconds * 1000) {
    const windowBegins = Date.now();
    await sleep(500);
    const { window, window_seconds: took } = await relay.stats();
    const { packets, bytes } = window.down.offered;
    // As the line counts: with 28 bytes of headers each.
    const fits = (bytes + packets * 28) * 8 / took <= rate;
    if (!fits) since = null;
    else since ??= (windowBegins - begun) / 1000;
  }
  return since;
}

// From when on the height was `height`; null if it was not at the end.
function reached(heights, height) {
  const [at, last] = heights.at(-1) ?? [];
  return last === height ? at : null;
}

function estimates(samples) {
  return samples.filter(({ estimate }) => estimate).map(({ at, estimate }) => [(at - samples[0].at) / 1000, estimate]);
}

/** One of two watchers sits behind a line of `rate` bit/s all the time. */
export function constantLine(browser, server, { rate = 1_000_000, seconds = 25 } = {}) {
  return withCall(async (open) => {
    const down = `${DELAY} rate=${rate} queue=300ms`;
    const relay = await startRelay(server, { up: DELAY, down });
    try {
      const { publisher, good, poor } = await watchedCall(open, browser, server, 'constant', relay);
      // The estimator's start is another scenario.
      await sleep(2 * SETTLE);
      await relay.stats();
      const from = Date.now();
      await sleep(seconds * 1000);
      const to = Date.now();
      const { window, window_seconds: took } = await relay.stats();
      const samples = between(await samplesOf(poor), from, to);
      return {
        sent: sentFigures(between(await samplesOf(publisher), from, to)),
        poor: streamFigures(samples, 'video'),
        audio: streamFigures(samples, 'audio'),
        good: streamFigures(between(await samplesOf(good), from, to), 'video'),
        estimates: estimates(samples),
        queueDelay: window.down.queue_delay_ms,
        offered: (window.down.offered.bytes + window.down.offered.packets * 28) * 8 / took,
        droppedPackets: window.down.dropped.queue.packets,
      };
    } finally {
      await relay.stop();
    }
  });
}

/**
 * The share of frames that a receiver decoded, against a lossless run. Both against what was sent meanwhile:
 * how many frames a camera and an encoder make depends on how busy the machine is.
 */
export function decodedShare(figures, lossless) {
  const share = ({ framesDecoded, framesSent }) => framesDecoded / framesSent;
  return share(figures.video) / share(lossless.video);
}
