// The signaling, walked by the unmodified client libraries outside any browser: protoo-client over the
// WebSocket and socket.io-client over Socket.IO. The same walk for both, since the same handlers answer.
// What is sent is what Chromium sent through mediasoup-client (tests/fixtures/browsers).

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { startServer } from './lib/server.mjs';
import { protooClient, socketIoClient } from './lib/signaling.mjs';
import { until } from './lib/until.mjs';

const fixture = async (name) =>
  JSON.parse(await readFile(new URL(`../fixtures/browsers/chromium156-msc3.24.1-${name}.json`, import.meta.url)));
const opus = await fixture('produce-opus-default');
const vp8 = await fixture('produce-vp8-single');
const { dtlsParameters } = await fixture('connect-vp8-single');
const rtpCapabilities = await fixture('recvRtpCapabilities');
// Each was the first of its transport when it was recorded; here they share one.
vp8.rtpParameters.mid = '1';

let server;
before(async () => { server = await startServer({ WORKERS: '2' }); });
after(() => server?.stop());

const libraries = { 'protoo-client': protooClient, 'socket.io-client': socketIoClient };

for (const [library, connect] of Object.entries(libraries)) {
  describe(library, () => {
    test('walks join, transports, produce, consume and leave', { timeout: 60_000 }, async (t) => {
      const room = `walk-${library.replaceAll('.', '-')}`;
      const ada = await client(t, connect);
      const bob = await client(t, connect);
      await join(ada, bob, room);
      await capabilities(ada);
      const transports = await makeTransports(ada, bob);
      const produced = await produce(ada, bob, transports.send);
      const consumed = await consume(bob, produced, transports.recv);
      assert.deepEqual(await server.roomTruth(room), { peers: ['ada', 'bob'], producers: 2, consumers: 2 });
      await pauseAndResume(ada, bob, produced, consumed);
      await wish(bob, consumed);
      await restartIce(ada, transports.send);
      await close(ada, bob, produced, consumed);
      await leave(ada, bob, room);
    });

    test('answers what is wrong with an error, and goes on', { timeout: 60_000 }, async (t) => {
      const room = `wrong-${library.replaceAll('.', '-')}`;
      const ada = await client(t, connect);
      const bob = await client(t, connect);
      await refused(ada.request('joinRoom', { peerId: 'ada' }), 400);
      await refused(ada.request('joinRoom', { roomId: '', peerId: 'ada' }), 400);
      await ada.request('joinRoom', { roomId: room, peerId: 'ada' });
      await refused(bob.request('joinRoom', { roomId: room, peerId: 'ada' }), 409);
      await bob.request('joinRoom', { roomId: room, peerId: 'bob' });

      const transport = await ada.request('createWebRtcTransport', { producing: true });
      await refused(ada.request('produce', { transportId: transport.id }), 400);
      await refused(ada.request('produce', { ...opus, transportId: 'nothing' }), 404);
      await refused(bob.request('produce', { ...opus, transportId: transport.id }), 403);
      await refused(bob.request('connectTransport', { transportId: transport.id, dtlsParameters }), 403);
      await refused(bob.request('consume', { producerId: 'nothing', rtpCapabilities }), 404);
      await refused(bob.request('pauseProducer', {}), 400);

      const { id: producerId } = await ada.request('produce', { ...opus, transportId: transport.id });
      await bob.request('createWebRtcTransport', { consuming: true });
      const deaf = { codecs: [], headerExtensions: [] };
      await refused(bob.request('consume', { producerId, rtpCapabilities: deaf }), 400);
      const consumer = await bob.request('consume', { producerId, rtpCapabilities });
      await refused(ada.request('pauseConsumer', { consumerId: consumer.id }), 403);
      await refused(bob.request('closeProducer', { producerId }), 403);
      await refused(bob.request('noSuchMethod', {}), 404);
      await refused(bob.request('setConsumerPriority', { consumerId: consumer.id, priority: 0 }), 400);
      await refused(bob.request('setConsumerPreferredLayers', { consumerId: consumer.id }), 400);
      await refused(ada.request('setConsumerPriority', { consumerId: consumer.id, priority: 1 }), 403);
      await refused(bob.request('getProducerStats', { producerId }), 403);
      await refused(bob.request('getTransportStats', { transportId: 'nothing' }), 404);
      await refused(bob.request('subscribeAudioLevels', { interval: -5 }), 400);

      // Nobody was thrown out by all that.
      assert.deepEqual(await server.roomTruth(room), { peers: ['ada', 'bob'], producers: 1, consumers: 1 });
    });
  });
}

test('clients of both libraries meet in one room', { timeout: 30_000 }, async (t) => {
  const old = await client(t, socketIoClient);
  const young = await client(t, protooClient);
  await old.request('joinRoom', { roomId: 'mixed', peerId: 'old', appData: { displayName: 'Old' } });
  const { peers } = await young.request('joinRoom', { roomId: 'mixed', peerId: 'young' });
  assert.deepEqual(peers, [{ peerId: 'old', appData: { displayName: 'Old' }, producers: [] }]);
  await old.notified('newPeer', { peerId: 'young' });
  young.close();
  await old.notified('peerLeft', { peerId: 'young' });
});

test('a room that REST closes tells its peers', { timeout: 30_000 }, async (t) => {
  const ada = await client(t, protooClient);
  await ada.request('joinRoom', { roomId: 'closing', peerId: 'ada' });
  assert.equal((await server.rest('DELETE', '/api/rooms/closing')).status, 204);
  await ada.notified('roomClosed', { roomId: 'closing' });
  assert.equal((await server.rest('GET', '/api/rooms/closing')).status, 404);
});

async function client(t, connect) {
  const made = await connect(server.url);
  t.after(() => made.close());
  return made;
}

async function refused(request, code) {
  await assert.rejects(request, (error) => {
    assert.equal(error.code, code, error.message);
    assert.ok(error.message.length > 0, 'the error says why');
    return true;
  });
}

// -- the walk, step by step --------------------------------------------------------------------

async function join(ada, bob, roomId) {
  const appData = { displayName: 'Ada' };
  assert.deepEqual(await ada.request('joinRoom', { roomId, peerId: 'ada', appData }), { peers: [] });
  const { peers } = await bob.request('joinRoom', { roomId, peerId: 'bob', appData: { displayName: 'Bob' } });
  assert.deepEqual(peers, [{ peerId: 'ada', appData, producers: [] }]);
  const { appData: told } = await ada.notified('newPeer', { peerId: 'bob' });
  assert.deepEqual(told, { displayName: 'Bob' });
}

async function capabilities(ada) {
  const { codecs, headerExtensions } = await ada.request('getRouterRtpCapabilities', {});
  const names = new Set(codecs.map(({ mimeType }) => mimeType.toLowerCase()));
  for (const name of ['audio/opus', 'video/vp8', 'video/vp9', 'video/h264', 'video/av1', 'video/rtx']) {
    assert.ok(names.has(name), name);
  }
  const direction = Object.fromEntries(headerExtensions.map(({ uri, direction }) => [uri.split(/[:/#]/).at(-1), direction]));
  assert.equal(direction['rtp-stream-id'], 'recvonly');
  assert.equal(direction['repaired-rtp-stream-id'], 'recvonly');
  const payloadTypes = codecs.map(({ preferredPayloadType }) => preferredPayloadType);
  assert.equal(new Set(payloadTypes).size, payloadTypes.length, 'one payload type per codec');
}

async function makeTransports(ada, bob) {
  const send = await ada.request('createWebRtcTransport', { producing: true, consuming: false });
  const recv = await bob.request('createWebRtcTransport', { producing: false, consuming: true });
  const { RTC_MIN_PORT, RTC_MAX_PORT, ANNOUNCED_IP } = server.settings;
  for (const { iceParameters, iceCandidates, dtlsParameters: ours } of [send, recv]) {
    assert.equal(iceParameters.iceLite, true);
    assert.ok(iceParameters.usernameFragment.length >= 4 && iceParameters.password.length >= 22, 'RFC 8445, 5.3');
    assert.ok(iceCandidates.length > 0);
    for (const { ip, address, port, protocol, type } of iceCandidates) {
      assert.deepEqual([address ?? ip, protocol, type], [ANNOUNCED_IP, 'udp', 'host']);
      assert.ok(port >= Number(RTC_MIN_PORT) && port <= Number(RTC_MAX_PORT), `port ${port}`);
    }
    assert.ok(ours.fingerprints.some(({ algorithm }) => algorithm === 'sha-256'));
  }
  for (const [peer, { id: transportId }] of [[ada, send], [bob, recv]]) {
    assert.deepEqual(await peer.request('connectTransport', { transportId, dtlsParameters }), {});
  }
  return { send, recv };
}

async function produce(ada, bob, send) {
  const ids = {};
  for (const [source, what] of Object.entries({ mic: opus, camera: vp8 })) {
    const { id, ...rest } = await ada.request('produce', { ...what, transportId: send.id, appData: { source } });
    assert.deepEqual(rest, {});
    const told = await bob.notified('newProducer', { producerId: id });
    assert.deepEqual(told, { peerId: 'ada', producerId: id, kind: what.kind, appData: { source } });
    ids[source] = id;
  }
  return ids;
}

async function consume(bob, produced, recv) {
  const mic = await bob.request('consume', { producerId: produced.mic, rtpCapabilities, transportId: recv.id });
  // Without a transport id, the peer's consuming transport.
  const camera = await bob.request('consume', { producerId: produced.camera, rtpCapabilities, paused: true });
  for (const [consumer, producerId, sent] of [[mic, produced.mic, opus], [camera, produced.camera, vp8]]) {
    assert.equal(consumer.producerId, producerId);
    assert.equal(consumer.kind, sent.kind);
    assert.equal(consumer.type, 'simple');
    assert.equal(consumer.producerPaused, false);
    const { codecs, encodings, rtcp, msid } = consumer.rtpParameters;
    assert.equal(codecs[0].mimeType.toLowerCase(), sent.rtpParameters.codecs[0].mimeType.toLowerCase());
    assert.equal(encodings.length, 1);
    assert.ok(Number.isInteger(encodings[0].ssrc));
    assert.equal(rtcp.cname, sent.rtpParameters.rtcp.cname);
    assert.equal(msid, sent.rtpParameters.msid);
  }
  assert.notEqual(mic.rtpParameters.mid, camera.rtpParameters.mid);
  return { mic, camera };
}

async function pauseAndResume(ada, bob, produced, consumed) {
  const producer = { producerId: produced.camera };
  assert.deepEqual(await ada.request('pauseProducer', producer), {});
  assert.deepEqual(await bob.notified('producerPaused', producer), { ...producer, peerId: 'ada' });
  assert.deepEqual(await ada.request('resumeProducer', producer), {});
  assert.deepEqual(await bob.notified('producerResumed', producer), { ...producer, peerId: 'ada' });
  const consumer = { consumerId: consumed.camera.id };
  for (const method of ['resumeConsumer', 'requestConsumerKeyFrame', 'pauseConsumer']) {
    assert.deepEqual(await bob.request(method, consumer), {}, method);
  }
}

async function wish(bob, { camera }) {
  const consumerId = camera.id;
  const layers = { consumerId, spatialLayer: 1, temporalLayer: 0 };
  assert.deepEqual(await bob.request('setConsumerPreferredLayers', layers), {});
  assert.deepEqual(await bob.request('setConsumerPreferredLayers', { consumerId, spatialLayer: 2 }), {});
  assert.deepEqual(await bob.request('setConsumerPriority', { consumerId, priority: 255 }), {});
  assert.deepEqual(await bob.request('subscribeAudioLevels', { interval: 1000 }), {});
  assert.deepEqual(await bob.request('subscribeAudioLevels', {}), {});
}

async function restartIce(ada, { id: transportId, iceParameters: old }) {
  const { iceParameters } = await ada.request('restartIce', { transportId });
  assert.notEqual(iceParameters.usernameFragment, old.usernameFragment);
  assert.notEqual(iceParameters.password, old.password);
}

async function close(ada, bob, produced, consumed) {
  assert.deepEqual(await bob.request('closeConsumer', { consumerId: consumed.mic.id }), {});
  assert.deepEqual(await ada.request('closeProducer', { producerId: produced.camera }), {});
  await bob.notified('consumerClosed', { consumerId: consumed.camera.id });
  assert.deepEqual(await bob.notified('producerClosed', { producerId: produced.camera }),
    { producerId: produced.camera, peerId: 'ada' });
}

async function leave(ada, bob, room) {
  assert.deepEqual(await ada.request('leaveRoom', {}), {});
  assert.deepEqual(await bob.notified('peerLeft', { peerId: 'ada' }), { peerId: 'ada' });
  assert.deepEqual((await server.roomTruth(room)).peers, ['bob']);
  // Closing the connection leaves too.
  bob.close();
  await until('the room is empty', async () => (await server.roomTruth(room)).peers.length === 0);
}
