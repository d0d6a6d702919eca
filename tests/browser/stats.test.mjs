// What the server tells a page about its call: figures, scores, who speaks and how loud, what nobody wants.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDemo, receivedWhen } from './lib/chromium.mjs';
import { setStage } from './lib/stage.mjs';
import { until } from './lib/until.mjs';
import { voiceArgument } from './lib/voice.mjs';

const SMALL = { width: '320', height: '240', fps: '15', simulcast: '0', join: '1' };

// The two peers of a call are on different shards.
const stage = setStage({ WORKERS: '2' }, async () => [await voiceArgument()]);

async function call(t, room, ...queries) {
  const { browser, server } = stage;
  const tabs = [];
  t.after(() => Promise.all(tabs.map(({ context }) => context.close())));
  for (const [index, query] of queries.entries()) {
    tabs.push(await openDemo(browser, server, { ...SMALL, room, peer: `peer-${index}`, ...query }));
    await until('it has joined', async () => (await server.roomTruth(room)).peers.length === index + 1);
  }
  return tabs;
}

const request = ({ page }, method, data) =>
  page.evaluate(([name, fields]) => globalThis.shardcast.call.request(name, fields), [method, data]);
const notified = ({ notifications }, wanted) => notifications.filter(({ method }) => method === wanted).map(({ data }) => data);

// Everything that mediasoup's documentation names for each kind and that is known in a call; all numbers.
const TRANSPORT = [
  'timestamp', 'bytesReceived', 'recvBitrate', 'bytesSent', 'sendBitrate', 'rtpBytesReceived', 'rtpRecvBitrate',
  'rtpBytesSent', 'rtpSendBitrate', 'rtxBytesReceived', 'rtxRecvBitrate', 'rtxBytesSent', 'rtxSendBitrate',
  'probationBytesSent', 'probationSendBitrate',
];
const STREAM = [
  'timestamp', 'ssrc', 'packetsLost', 'fractionLost', 'packetsDiscarded', 'packetsRetransmitted', 'packetsRepaired',
  'nackCount', 'nackPacketCount', 'pliCount', 'firCount', 'packetCount', 'byteCount', 'bitrate', 'score', 'jitter',
];

function assertNumbers(stats, names) {
  for (const name of names) assert.equal(typeof stats[name], 'number', `${name}: ${JSON.stringify(stats)}`);
}

test('figures of transports, producers and consumers', { timeout: 90_000 }, async (t) => {
  const [sender, receiver] = await call(t, 'figures', {}, { audio: '0', video: '0' });
  await receivedWhen('audio and video arrive', receiver, (stats) =>
    stats.length === 2 && stats.every(({ packetsReceived }) => packetsReceived > 100));
  const ids = await sender.page.evaluate(() => ({
    transport: globalThis.shardcast.transports.send.id,
    producers: [...globalThis.shardcast.producers].map(([source, { id }]) => [source, id]),
  }));

  const [transport] = await request(sender, 'getTransportStats', { transportId: ids.transport });
  assertNumbers(transport, TRANSPORT);
  assert.deepEqual(
    [transport.type, transport.transportId, transport.iceRole, transport.iceState, transport.dtlsState],
    ['webrtc-transport', ids.transport, 'controlled', 'completed', 'connected'],
  );
  assert.equal(transport.iceSelectedTuple.protocol, 'udp');
  assert.ok(transport.bytesReceived > transport.rtpBytesReceived && transport.rtpBytesReceived > 10_000);
  // The same moment in the same unit, milliseconds; the machines' clock is one.
  assert.ok(Math.abs(transport.timestamp - Date.now()) < 60_000);

  const sent = await sender.page.evaluate(async () => {
    const reports = await Promise.all([...globalThis.shardcast.producers.values()].map((producer) => producer.getStats()));
    return reports.flatMap((report) => [...report.values()]).filter(({ type }) => type === 'outbound-rtp');
  });
  for (const [source, producerId] of ids.producers) {
    const kind = source === 'mic' ? 'audio' : 'video';
    const [stats] = await until(`${kind}'s bitrate is measured`, async () => {
      const answer = await request(sender, 'getProducerStats', { producerId });
      return answer[0]?.bitrate > 0 && answer;
    });
    assertNumbers(stats, STREAM);
    const own = sent.find((report) => report.kind === kind);
    assert.deepEqual([stats.type, stats.kind, stats.ssrc, stats.score], ['inbound-rtp', kind, own.ssrc, 10]);
    assert.equal(stats.mimeType, kind === 'audio' ? 'audio/opus' : 'video/VP8');
    // The browser counts its probes too, and no headers: the same to a factor of two.
    for (const [theirs, ours] of [[own.packetsSent, stats.packetCount], [own.bytesSent, stats.byteCount]]) {
      assert.ok(ours > theirs / 2 && ours < theirs * 2, `${kind}: ${theirs} sent, ${ours} arrived`);
    }
  }

  const consumers = await receiver.page.evaluate(() => Promise.all(
    [...globalThis.shardcast.consumers.values()].map(async ({ consumer }) => ({
      id: consumer.id,
      kind: consumer.kind,
      inbound: [...(await consumer.getStats()).values()].find(({ type }) => type === 'inbound-rtp'),
    })),
  ));
  for (const { id, kind, inbound } of consumers) {
    const answer = await request(receiver, 'getConsumerStats', { consumerId: id });
    assert.deepEqual(answer.map(({ type }) => type), ['outbound-rtp', 'inbound-rtp']);
    const [stats] = answer;
    answer.forEach((entry) => assertNumbers(entry, STREAM));
    assert.deepEqual([stats.kind, stats.ssrc, stats.packetsLost, stats.score], [kind, inbound.ssrc, 0, 10]);
    assert.ok(stats.packetCount >= inbound.packetsReceived, 'what the browser received was sent');
    if (kind === 'video') assert.deepEqual(stats.currentLayers.spatialLayer, 0);
  }
});

test('who speaks, and how loud', { timeout: 90_000 }, async (t) => {
  const [ada, bob] = await call(t, 'voices', { peer: 'ada', video: '0' }, { peer: 'bob', video: '0' });
  await Promise.all([ada, bob].map((tab) => receivedWhen('the other is heard', tab, ([audio]) => audio?.totalAudioEnergy > 0)));
  await bob.page.click('#mic');
  await request(bob, 'subscribeAudioLevels', { interval: 200 });

  const speaker = (tab) => notified(tab, 'activeSpeakerChanged').at(-1)?.activeSpeakerId;
  await until('both are told that Ada speaks', () => speaker(ada) === 'ada' && speaker(bob) === 'ada');
  await until("Ada's level is told", () => notified(bob, 'audioLevels').some(({ levels }) =>
    levels.length === 1 && levels[0].peerId === 'ada' && levels[0].level > -60 && levels[0].level <= 0));
  assert.deepEqual(notified(ada, 'audioLevels'), [], 'only who asks is told');

  // Ada falls silent, and Bob speaks.
  await ada.page.click('#mic');
  await bob.page.click('#mic');
  await until('both are told that Bob speaks', () => speaker(ada) === 'bob' && speaker(bob) === 'bob');
  await bob.page.click('#mic');
  await until('both are told that nobody speaks', () => speaker(ada) === null && speaker(bob) === null);
});

test('layers that nobody wants are stopped, and come back', { timeout: 120_000 }, async (t) => {
  const camera = { simulcast: '1', width: '640', height: '360', audio: '0' };
  const [sender, watcher] = await call(t, 'wanted', camera, { audio: '0', video: '0' });
  await receivedWhen('the camera arrives', watcher, ([video]) => video?.framesDecoded > 0);
  const active = () => sender.page.evaluate(() => {
    const { rtpSender } = globalThis.shardcast.producers.get('camera');
    return rtpSender.getParameters().encodings.map((encoding) => encoding.active);
  });
  const prefer = (spatialLayer) => watcher.page.evaluate((layer) => {
    const { call: ours, consumers } = globalThis.shardcast;
    return ours.request('setConsumerPreferredLayers', { consumerId: [...consumers.keys()][0], spatialLayer: layer });
  }, spatialLayer);

  await prefer(0);
  await until('the higher encodings are stopped', async () => JSON.stringify(await active()) === '[true,false,false]');
  assert.equal(notified(sender, 'producerLayersWanted').at(-1).spatialLayer, 0);
  const lowest = await receivedWhen('the lowest arrives', watcher, ([video]) => video?.frameHeight > 0 && video.frameHeight < 180);
  await prefer(2);
  await until('all are sent again', async () => (await active()).every(Boolean));
  await receivedWhen('a higher one arrives', watcher, ([video]) => video.frameHeight > lowest[0].frameHeight);
});

test('the capture time reaches the other shard', { timeout: 90_000 }, async (t) => {
  const [, receiver] = await call(t, 'capture', {}, { audio: '0', video: '0' });
  await until('audio and video say when they were captured', () => receiver.page.evaluate(() => {
    const sources = [...globalThis.shardcast.consumers.values()].flatMap(({ consumer }) => consumer.rtpReceiver.getSynchronizationSources());
    return sources.length === 2 && sources.every(({ captureTimestamp }) => captureTimestamp > 0);
  }));
});
