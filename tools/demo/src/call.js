// Being in a room: signaling, the two transports, what is sent and what is received. No page elements here.
//
// Events, each with its data in `detail`:
//   state {state, text}                joining | joined | reconnecting | left
//   peerJoined {peerId, name}          peerLeft {peerId}
//   trackStarted {peerId, source, track}   trackEnded {peerId, source, track}
//   trackPaused {peerId, source, kind, paused}
//   speaker {peerId}                   who speaks; null: nobody
//   problem {text}                     something to tell the user; the call goes on. null: it is over

import { Peer, WebSocketTransport } from 'protoo-client';
import { Device } from 'mediasoup-client';
import { encodingsFor } from './capture.js';
import { applyLayersWanted } from './layers.js';
import { Receiving } from './receiving.js';
import { KeptTransport } from './recover.js';

// A connection that broke is found dead by the server only at its next missed ping (10 s apart).
// Until then our own old self holds the name.
const REJOIN_TRIES = 30;
// And a server that is about to stop lets nobody in (503); the next one will.
const REJOIN_AFTER = [409, 503];
const REJOIN_PAUSE = 1000;

// What is lost of a voice is in the packet behind it too (in-band FEC), or is sent again.
const AUDIO = { opusFec: true, opusNack: true };

// Browsers offer the time of capture only if they are asked to.
const WANTED_EXTENSIONS = { 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time': true };

export class Call extends EventTarget {
  #options;
  #peer = null;
  // The server has said that it will stop: the end of the room and of the connection are no end of the call.
  #draining = false;
  #state = 'new';
  // Counts the connections, so that work begun on a lost one knows that it is late.
  #session = 0;
  // Rejected when the connection is lost: nobody will answer its open requests.
  #lost = lostSignal();
  #device = null;
  // Made when something is to be sent; kept until the connection is lost.
  #sending = null;
  #sendTransport = null;
  // What we want to send, by source ('mic', 'camera', 'screen'): it outlives connections and transports.
  #sources = new Map();
  // What the server wants of our producers, by id: it may say so before the browser has made them.
  #wanted = new Map();
  #receiving = null;
  // All sending starts and stops one after the other, so that a rebuild never meets a half-made producer.
  #sendQueue = Promise.resolve();

  /** `options`: url, room, peerId, name, codec ('vp8', …), simulcast, svc (a mode), startBitrate (kbit/s). */
  constructor(options) {
    super();
    this.#options = options;
  }

  get peerId() { return this.#options.peerId; }
  get name() { return this.#options.name; }
  get device() { return this.#device; }
  get sendTransport() { return this.#sendTransport; }
  get receiving() { return this.#receiving; }
  get state() { return this.#state; }

  /** The mediasoup-client producers, by source. */
  get producers() {
    const made = [...this.#sources].filter(([, entry]) => entry.producer);
    return new Map(made.map(([source, entry]) => [source, entry.producer]));
  }

  /** Connects and joins. Later losses of the connection are mended without being asked. */
  join() {
    this.#setState('joining', 'joining…');
    this.#peer = new Peer(new WebSocketTransport(this.#options.url));
    this.#peer.on('open', () => this.#enter());
    this.#peer.on('failed', () => this.#setState('reconnecting', 'the server does not answer, trying again…'));
    this.#peer.on('disconnected', () => {
      this.#dropSession();
      this.#setState('reconnecting', 'connection lost, trying again…');
    });
    this.#peer.on('close', () => this.#end('the connection is closed'));
    this.#peer.on('notification', ({ method, data }) => this.#notified(method, data ?? {}));
    this.#peer.on('request', (_request, _accept, reject) => reject(404, 'not known here'));
  }

  /** Says goodbye and closes everything. */
  leave() {
    // The server treats the closing as leaving too, so nobody waits for the answer.
    this.#peer?.request('leaveRoom', {}).catch(() => {});
    this.#end('you left');
  }

  /** Sends a track under a source name. The caller keeps the track: it is never stopped here. */
  async publish(source, track) {
    this.#sources.set(source, { track, paused: false, producer: null });
    if (this.#state === 'joined') await this.#queueSend(() => this.#produce(source));
  }

  /** Stops sending a source and hands its track back. */
  async unpublish(source) {
    const entry = this.#sources.get(source);
    this.#sources.delete(source);
    this.#wanted.delete(entry?.producer?.id);
    if (entry?.producer && !entry.producer.closed) {
      entry.producer.close();
      await this.request('closeProducer', { producerId: entry.producer.id }).catch(() => {});
    }
    return entry?.track;
  }

  /** Mutes or unmutes a source; the others are told. */
  async setPaused(source, paused) {
    const entry = this.#sources.get(source);
    if (!entry) return;
    entry.paused = paused;
    // The producer does this too, but there may be none while we reconnect.
    entry.track.enabled = !paused;
    if (!entry.producer || entry.producer.closed) return;
    if (paused) entry.producer.pause();
    else entry.producer.resume();
    const method = paused ? 'pauseProducer' : 'resumeProducer';
    await this.request(method, { producerId: entry.producer.id }).catch((error) => this.#problem(error));
  }

  /** One signaling request. Rejects with an Error that has the server's `code`. */
  request(method, data) {
    return Promise.race([this.#peer.request(method, data), this.#lost.promise]);
  }

  // -- joining ---------------------------------------------------------------------------------

  async #enter() {
    const session = ++this.#session;
    try {
      await this.#joinRoom(session);
      const routerRtpCapabilities = await this.request('getRouterRtpCapabilities', {});
      const device = await Device.factory({ forcedRtpExtensions: WANTED_EXTENSIONS });
      await device.load({ routerRtpCapabilities });
      if (session !== this.#session) return;
      this.#device = device;
      this.#setState('joined', `in room ${this.#options.room}`);
      // What was wrong with the connection before is mended.
      if (session > 1) this.emit('problem', { text: null });
      this.#receiving.ready(device);
      await this.#queueSend(() => this.#produceAll());
    } catch (error) {
      if (session !== this.#session || this.#state === 'left') return;
      this.#problem(error);
      this.#end('could not join');
    }
  }

  async #joinRoom(session) {
    const { room, peerId, token, name } = this.#options;
    for (let tries = 1; ; tries += 1) {
      try {
        const asked = { roomId: room, peerId, token, appData: { displayName: name } };
        const { peers } = await this.request('joinRoom', asked);
        // Before anything else is waited for: notifications about these peers may be right behind the answer.
        if (session === this.#session) this.#receiving = new Receiving(this, peers);
        return;
      } catch (error) {
        const waiting = REJOIN_AFTER.includes(error.code) && session > 1 && tries < REJOIN_TRIES;
        if (!waiting || session !== this.#session) throw error;
        await new Promise((resolve) => setTimeout(resolve, REJOIN_PAUSE));
      }
    }
  }

  #notified(method, data) {
    switch (method) {
      case 'roomClosed':
        // Of a server that stops, the connection ends next, and we come again.
        return this.#draining ? undefined : this.#end('the room was closed');
      case 'draining':
        this.#draining = true;
        return this.#problem('The server is about to stop. The call will go on when it is back.');
      case 'activeSpeakerChanged':
        return this.emit('speaker', { peerId: data.activeSpeakerId });
      case 'producerLayersWanted':
        this.#wanted.set(data.producerId, data.spatialLayer);
        return this.#sendWanted();
      case 'transportClosed':
        this.#sending?.closed(data.transportId);
        return this.#receiving?.notified(method, data);
      default:
        return this.#receiving?.notified(method, data);
    }
  }

  // -- transports ------------------------------------------------------------------------------

  /** Makes a WebRTC transport ('send' or 'recv') and wires it to the signaling. */
  async createTransport(direction) {
    const sending = direction === 'send';
    const device = this.#device;
    const info = await this.request('createWebRtcTransport', { producing: sending, consuming: !sending });
    const transport = sending ? device.createSendTransport(info) : device.createRecvTransport(info);

    transport.on('connect', ({ dtlsParameters }, done, failed) => {
      this.request('connectTransport', { transportId: transport.id, dtlsParameters }).then(done, failed);
    });
    transport.on('produce', ({ kind, rtpParameters, appData }, done, failed) => {
      this.request('produce', { transportId: transport.id, kind, rtpParameters, appData }).then(done, failed);
    });
    transport.on('connectionstatechange', (state) => {
      if (state === 'failed') this.#restartIce(transport);
    });
    return transport;
  }

  // The network changed under us. If even this does not help, the server gives the transport up
  // and says `transportClosed`.
  async #restartIce(transport) {
    try {
      const { iceParameters } = await this.request('restartIce', { transportId: transport.id });
      if (!transport.closed) await transport.restartIce({ iceParameters });
    } catch (error) {
      this.#problem(error);
    }
  }

  // -- sending ---------------------------------------------------------------------------------

  #queueSend(work) {
    const session = this.#session;
    this.#sendQueue = this.#sendQueue.then(work).catch((error) => {
      // What a lost connection broke is done again after the next join.
      if (session === this.#session) this.#problem(error);
    });
    return this.#sendQueue;
  }

  async #produceAll() {
    for (const source of this.#sources.keys()) await this.#produce(source);
  }

  async #produce(source) {
    const entry = this.#sources.get(source);
    if (!entry || entry.producer || this.#state !== 'joined') return undefined;
    const session = this.#session;
    this.#sending ??= new KeptTransport({
      create: () => this.createTransport('send'),
      restore: () => this.#queueSend(() => this.#produceAll()),
      problem: (error) => this.#problem(error),
    });
    const transport = await this.#sending.get();
    if (session !== this.#session) return undefined;
    this.#sendTransport = transport;
    const codec = entry.track.kind === 'video' ? this.#videoCodec() : undefined;
    const producer = await transport.produce({
      track: entry.track,
      encodings: encodingsFor(source, this.#options),
      codec,
      // Start at a picture worth looking at instead of growing into it for seconds (kbit/s).
      codecOptions: entry.track.kind === 'video' ? { videoGoogleStartBitrate: this.#options.startBitrate } : AUDIO,
      // The track goes on to the next transport after a reconnect.
      stopTracks: false,
      appData: { source },
    });
    if (session !== this.#session) return producer.close();
    // Taken back or replaced while we were waiting: nobody else knows of this producer.
    if (this.#sources.get(source) !== entry) {
      producer.close();
      return this.request('closeProducer', { producerId: producer.id }).catch(() => {});
    }
    entry.producer = producer;
    producer.on('transportclose', () => {
      if (entry.producer === producer) entry.producer = null;
    });
    this.#sendWanted();
    return entry.paused ? this.setPaused(source, true) : undefined;
  }

  #sendWanted() {
    for (const { producer } of this.#sources.values()) {
      if (!producer?.rtpSender || producer.closed || !this.#wanted.has(producer.id)) continue;
      // A sender that ends meanwhile has nothing left to stop.
      applyLayersWanted(producer.rtpSender, this.#wanted.get(producer.id))
        .catch((error) => { if (!producer.closed) this.#problem(error); });
    }
  }

  #videoCodec() {
    const wanted = `video/${this.#options.codec}`;
    const codecs = this.#device.sendRtpCapabilities.codecs;
    const codec = codecs.find(({ mimeType }) => mimeType.toLowerCase() === wanted);
    if (!codec) throw new Error(`This browser and this server have no ${wanted} in common.`);
    return codec;
  }

  #closeSending() {
    this.#sending?.close();
    this.#sending = null;
    this.#sendTransport = null;
  }

  // -- ending ----------------------------------------------------------------------------------

  #dropSession() {
    this.#session += 1;
    this.#draining = false;
    this.#lost.reject(new Error('the connection to the server was lost'));
    this.#lost = lostSignal();
    this.#closeSending();
    this.#wanted.clear();
    this.#receiving?.close();
    this.#receiving = null;
    this.emit('speaker', { peerId: null });
  }

  #end(text) {
    if (this.#state === 'left') return;
    this.#dropSession();
    this.#setState('left', text);
    this.#peer?.close();
  }

  #setState(state, text) {
    if (this.#state === 'left') return;
    this.#state = state;
    this.emit('state', { state, text });
  }

  #problem(error) {
    if (this.#state !== 'left') this.emit('problem', { text: error.message ?? String(error) });
  }

  /** Tells the listeners; the receiving half reports through its call. */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Reports a failure that the call survives. */
  complain(error) {
    this.#problem(error);
  }
}

function lostSignal() {
  const signal = Promise.withResolvers();
  // Losing a connection with no request open is no error.
  signal.promise.catch(() => {});
  return signal;
}
