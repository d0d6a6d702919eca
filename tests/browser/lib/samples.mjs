// A page's statistics over time, and what they say about a stretch of it.

import { received } from './chromium.mjs';
import { until } from './until.mjs';

/** Between two looks, ms: the error of every time that is measured here. */
export const INTERVAL = 200;

/** Begins to take samples in the page. Once per page. */
export async function startSampling(tab) {
  await tab.page.evaluate((interval) => {
    const samples = [];
    globalThis.lineSamples = samples;
    const inbound = async ({ consumer, peerId, source }) => {
      const reports = [...(await consumer.getStats()).values()];
      const stats = reports.find(({ type }) => type === 'inbound-rtp');
      return stats && { ...stats, consumer: consumer.id, peerId, source };
    };
    const outbound = async ([source, producer]) => {
      const reports = [...(await producer.getStats()).values()];
      return reports.filter(({ type }) => type === 'outbound-rtp').map((stats) => ({ ...stats, source }));
    };
    // What the server says that the line carries, bit/s; null while it says nothing.
    const estimate = async () => {
      const { call, transports } = globalThis.shardcast;
      const { id } = (await transports.recv) ?? {};
      if (!id) return null;
      const answer = await call.request('getTransportStats', { transportId: id }).catch(() => []);
      const stats = [answer.stats ?? answer].flat().find((entry) => entry.availableOutgoingBitrate > 0);
      return stats?.availableOutgoingBitrate ?? null;
    };
    const look = async () => {
      const { consumers, producers } = globalThis.shardcast;
      const [ins, outs, bitrate] = await Promise.all([
        Promise.all([...consumers.values()].map(inbound)),
        Promise.all([...producers].map(outbound)),
        estimate(),
      ]);
      samples.push({
        at: performance.timeOrigin + performance.now(),
        inbound: ins.filter(Boolean),
        outbound: outs.flat(),
        estimate: bitrate,
      });
    };
    (async () => {
      for (;;) {
        const begun = performance.now();
        await look().catch(() => {});
        const rest = interval - (performance.now() - begun);
        await new Promise((resolve) => setTimeout(resolve, Math.max(rest, 10)));
      }
    })();
  }, INTERVAL);
}

/** All samples so far: `{at (ms since 1970), inbound, outbound, estimate}`. */
export function samplesOf(tab) {
  return tab.page.evaluate(() => globalThis.lineSamples);
}

/** Waits until the page has `audio` and `video` streams that flow. */
export async function flowing(what, tab, { audio = 0, video = 0 }) {
  await until(`${what}: ${audio} audio and ${video} video streams flow`, async () => {
    const stats = await received(tab);
    const good = (kind, field) => stats.filter((line) => line.kind === kind && line[field] > 0).length;
    return good('audio', 'packetsReceived') === audio && good('video', 'framesDecoded') === video;
  });
}

/** The samples from one moment to another, ms since 1970. */
export function between(samples, from, to) {
  return samples.filter(({ at }) => at >= from && at <= to);
}

/** What one stream (`kind`, and `peerId` if several) did from the first of the samples to the last. */
export function streamFigures(samples, kind, peerId) {
  const looks = samples
    .map(({ at, inbound }) => ({ at, stats: inbound.find((s) => s.kind === kind && (!peerId || s.peerId === peerId)) }))
    .filter(({ stats }) => stats);
  if (looks.length < 2) throw new Error(`nothing was seen of ${peerId}'s ${kind}`);
  const [first, last] = [looks[0], looks.at(-1)];
  const grown = (field) => (last.stats[field] ?? 0) - (first.stats[field] ?? 0);
  const seconds = (last.at - first.at) / 1000;
  const [lost, arrived, resent] = ['packetsLost', 'packetsReceived', 'retransmittedPacketsReceived'].map(grown);
  const common = {
    seconds,
    bitrate: grown('bytesReceived') * 8 / seconds,
    packetsReceived: arrived,
    packetsLost: lost,
    retransmitted: resent,
    nacks: grown('nackCount'),
  };
  if (kind === 'audio') {
    const samplesPlayed = grown('totalSamplesReceived');
    return {
      ...common,
      // Without the concealing of silence, which nobody hears: an encoder may stop sending then.
      concealed: (grown('concealedSamples') - grown('silentConcealedSamples')) / samplesPlayed,
      concealedWithSilence: grown('concealedSamples') / samplesPlayed,
    };
  }
  return {
    ...common,
    // Chromium counts a packet that RTX brought back as lost all the same, and apart from that as retransmitted.
    residualLoss: Math.max(lost - resent, 0) / Math.max(arrived + lost, 1),
    framesReceived: grown('framesReceived'),
    framesDecoded: grown('framesDecoded'),
    framesDropped: grown('framesDropped'),
    keyFrames: grown('keyFramesDecoded'),
    keyFrameRequests: grown('pliCount') + grown('firCount'),
    freezes: grown('freezeCount'),
    frozen: grown('totalFreezesDuration'),
    standstill: standstill(looks),
    heights: heights(looks),
  };
}

// The longest time without a new frame, s: an unfinished freeze counts too.
function standstill(looks) {
  let [longest, since] = [0, looks[0]];
  for (const look of looks) {
    longest = Math.max(longest, look.at - since.at);
    if (look.stats.framesDecoded > since.stats.framesDecoded) since = look;
  }
  return longest / 1000;
}

// The heights of new pictures over time: `[[s since the first look, height], …]`, one entry per change.
// A picture that stands still is not seen again: after a freeze the first entry says when it ended.
function heights(looks) {
  const changes = [];
  for (const [index, { at, stats }] of looks.entries()) {
    const isNew = index > 0 && stats.framesDecoded > looks[index - 1].stats.framesDecoded;
    if (isNew && changes.at(-1)?.[1] !== stats.frameHeight) {
      changes.push([(at - looks[0].at) / 1000, stats.frameHeight]);
    }
  }
  return changes;
}

/** What the publisher sent per encoding: `[{rid, height, bitrate (bit/s), frames}]`, smallest first. */
export function sentFigures(samples) {
  const [first, last] = [samples[0], samples.at(-1)];
  const seconds = (last.at - first.at) / 1000;
  const encodings = last.outbound.filter(({ kind }) => kind === 'video').map((now) => {
    const then = first.outbound.find(({ id }) => id === now.id) ?? {};
    return {
      rid: now.rid ?? '',
      height: now.frameHeight ?? 0,
      bitrate: (now.bytesSent - (then.bytesSent ?? 0)) * 8 / seconds,
      frames: now.framesSent - (then.framesSent ?? 0),
    };
  });
  return encodings.sort((a, b) => a.height - b.height);
}
