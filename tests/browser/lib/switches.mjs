// One watches another's camera, and wants now this layer, now that one.

import { setTimeout as sleep } from 'node:timers/promises';
import { openDemo } from './chromium.mjs';
import { flowing, samplesOf, startSampling } from './samples.mjs';
import { until } from './until.mjs';

/** What is switched: simulcast encodings, or the layers inside one stream. */
export const LAYERED = { vp8: 'simulcast', h264: 'simulcast', vp9: 'L3T3_KEY', av1: 'L3T3' };
/** Large enough for three layers in Chromium, and slow enough for a busy machine. */
const CAMERA = { width: '960', height: '540', fps: '10', audio: '0', join: '1' };
/** kbit/s: the publisher need not find out first that its line carries all layers. */
const START = '3000';
/** The spatial layers that are wanted one after the other, from the lowest on: every way up and down. */
const WISHES = [2, 1, 2, 0, 1, 0];
const [LOWEST, TOP] = [0, 2];
/** Encoders cut some lines off the picture, so that every layer has an even number of them. */
const ROUNDING = 8;
/** Encoders may take so long until they send all three layers, ms. */
const ALL_LAYERS = 45_000;

/**
 * Publishes with three spatial layers of `codec` and switches a watcher's consumer `count` times, every
 * `every` ms. Gives what the watcher saw, and one entry per wish: `{from, to, took (ms until a picture of the
 * wanted size; null: never), sent (the layer that the server says), height (of the picture), changes (of
 * layers, as notified), asked (key frames, of the publisher)}`. On a busy machine the server may find the line
 * too short for a wish, or fulfil it in two steps.
 */
export async function switchingCall(browser, server, { codec, count, every = 2000 }) {
  const room = `switches-${codec}`;
  const opened = [];
  try {
    for (const [peer, video] of [['publisher', '1'], ['watcher', '0']]) {
      const svc = LAYERED[codec] === 'simulcast' ? '' : LAYERED[codec];
      opened.push(await openDemo(browser, server, { ...CAMERA, room, peer, codec, video, svc, start: START }));
      if (peer === 'publisher') await joined(opened[0]);
    }
    const [publisher, watcher] = opened;
    await flowing(`${codec}'s watcher`, watcher, { video: 1 });
    await Promise.all([publisher, watcher].map(startSampling));
    const heights = await layerHeights(watcher, codec);
    const before = await look(watcher, publisher);
    const switches = await play(watcher, publisher, heights, { count, every });
    const after = await look(watcher, publisher);
    const grown = (field) => after[field] - before[field];
    return {
      codec,
      layered: LAYERED[codec],
      heights,
      switches,
      framesDecoded: grown('framesDecoded'),
      framesDropped: grown('framesDropped'),
      freezes: grown('freezeCount'),
      frozen: grown('totalFreezesDuration'),
      longestStandstill: longestStandstill(await samplesOf(watcher), before.at, after.at),
      // The receiver asks for a key frame when it cannot decode; when layers are switched, the server asks.
      receiversKeyFrameRequests: grown('pliCount') + grown('firCount'),
      errors: opened.flatMap(({ errors }) => errors),
    };
  } finally {
    for (const { context } of opened.reverse()) await context.close();
  }
}

function joined({ page }) {
  return page.waitForFunction(() => globalThis.shardcast.producers.size > 0);
}

// The pictures' heights by layer, lowest first: asks for the lowest and for the best, and waits until the
// three are a quarter, a half and the whole.
async function layerHeights(watcher, codec) {
  const at = async (spatialLayer, fits) => {
    await want(watcher, spatialLayer);
    return until(`${codec}: all layers are sent`, async () => {
      const { height } = await pictureOf(watcher);
      return fits(height) && height;
    }, { timeout: ALL_LAYERS });
  };
  const top = await at(TOP, (height) => height >= CAMERA.height - ROUNDING);
  const lowest = await at(LOWEST, (height) => height > 0 && height <= top / 4 + 1);
  return [lowest, Math.round(top / 2), top];
}

async function play(watcher, publisher, heights, { count, every }) {
  const switches = [];
  let from = LOWEST;
  const wishes = Array.from({ length: count }, (_, index) => WISHES[index % WISHES.length]);
  for (const to of wishes) {
    const begun = Date.now();
    const { keyFrameRequests } = await look(watcher, publisher);
    const changes = layerChanges(watcher).length;
    await want(watcher, to);
    const took = await until('the picture of the wanted layer', async () => {
      const { height } = await pictureOf(watcher);
      return Math.abs(height - heights[to]) <= 1 && { ms: Date.now() - begun };
    }, { timeout: every * 2, interval: 50 }).catch(() => ({ ms: null }));
    await sleep(Math.max(0, begun + every - Date.now()));
    const { height } = await pictureOf(watcher);
    const told = layerChanges(watcher);
    const asked = (await look(watcher, publisher)).keyFrameRequests - keyFrameRequests;
    switches.push({ from, to, took: took.ms, sent: told.at(-1), height, changes: told.length - changes, asked });
    from = to;
  }
  return switches;
}

// The spatial layers that the server said that it sends, one after the other.
function layerChanges({ notifications }) {
  const changed = notifications.filter(({ method }) => method === 'consumerLayersChanged');
  const layers = changed.map(({ data }) => data.spatialLayer);
  // Changes of the temporal layer alone do not count.
  return layers.filter((layer, index) => layer !== layers[index - 1]);
}

function want(watcher, spatialLayer) {
  return watcher.page.evaluate((layer) => {
    const { call, consumers } = globalThis.shardcast;
    const consumerId = [...consumers.keys()][0];
    return call.request('setConsumerPreferredLayers', { consumerId, spatialLayer: layer });
  }, spatialLayer);
}

// The newest decoded picture, from the element that shows it: statistics lag behind.
function pictureOf(watcher) {
  return watcher.page.evaluate(() => {
    const video = document.querySelector('.tile:not(.own) video');
    return { height: video?.videoHeight ?? 0 };
  });
}

// The watcher's totals, and how many key frames the publisher was asked for.
async function look(watcher, publisher) {
  const stats = await watcher.page.evaluate(async () => {
    const { consumer } = [...globalThis.shardcast.consumers.values()][0];
    return [...(await consumer.getStats()).values()].find(({ type }) => type === 'inbound-rtp');
  });
  const keyFrameRequests = await publisher.page.evaluate(async () => {
    const producer = globalThis.shardcast.producers.get('camera');
    const sent = [...(await producer.getStats()).values()].filter(({ type }) => type === 'outbound-rtp');
    return sent.reduce((sum, { pliCount = 0, firCount = 0 }) => sum + pliCount + firCount, 0);
  });
  return { firCount: 0, ...stats, at: Date.now(), keyFrameRequests };
}

// s without a new picture, at most.
function longestStandstill(samples, from, to) {
  let [longest, last] = [0, null];
  for (const { at, inbound: [stats] } of samples) {
    if (at < from || at > to || !stats) continue;
    last ??= { at, frames: stats.framesDecoded };
    longest = Math.max(longest, at - last.at);
    if (stats.framesDecoded > last.frames) last = { at, frames: stats.framesDecoded };
  }
  return longest / 1000;
}
