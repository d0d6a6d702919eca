// The receiving half of one connection: who is in the room, and their media.

import { KeptTransport } from './recover.js';

/** Lives from a join to the loss of that connection; a new join makes a new one. */
export class Receiving {
  #call;
  #device = null;
  #closed = false;
  // Resolved when the device is loaded; producers that are told of earlier wait for it.
  #ready = Promise.withResolvers();
  // Made when there is something to receive.
  #kept;
  #transport = null;
  // peerId -> {name, producers: Map producerId -> {source, paused}}
  #peers = new Map();
  // consumerId -> {consumer, peerId, source, layers?, score?}
  #consumers = new Map();
  // Consumers that the server closed before the browser had made them.
  #closedEarly = new Set();

  /** Begins with `peers`, those who were in the room before us. */
  constructor(call, peers) {
    this.#call = call;
    this.#kept = new KeptTransport({
      create: () => call.createTransport('recv'),
      restore: () => this.#consumeAll(),
      problem: (error) => call.complain(error),
    });
    for (const { peerId, appData, producers } of peers) {
      this.#addPeer(peerId, appData);
      for (const producer of producers) this.#addProducer({ peerId, ...producer });
    }
  }

  /** A promise of the receiving transport, or null before it is needed. */
  get transport() { return this.#transport; }

  /** The mediasoup-client consumers with their peer and source, by consumer id. */
  get consumers() { return this.#consumers; }

  /** The name that a peer shows, or undefined for one who is not here. */
  nameOf(peerId) {
    return this.#peers.get(peerId)?.name;
  }

  /** Media can come now. */
  ready(device) {
    this.#device = device;
    this.#ready.resolve();
  }

  close() {
    this.#closed = true;
    for (const peerId of [...this.#peers.keys()]) this.#removePeer(peerId);
    this.#kept.close();
  }

  notified(method, data) {
    switch (method) {
      case 'newPeer': return this.#addPeer(data.peerId, data.appData);
      case 'peerLeft': return this.#removePeer(data.peerId);
      case 'newProducer': return this.#addProducer(data);
      case 'producerClosed': return this.#removeProducer(data);
      case 'consumerClosed': return this.#consumerClosed(data.consumerId);
      case 'producerPaused': return this.#setPaused(data.producerId, true);
      case 'producerResumed': return this.#setPaused(data.producerId, false);
      case 'transportClosed': return this.#kept.closed(data.transportId);
      case 'consumerLayersChanged': return this.#layersChanged(data);
      case 'consumerScore': return this.#note(data.consumerId, { score: data.score.score });
      default: return undefined;
    }
  }

  #addPeer(peerId, appData) {
    if (this.#closed || this.#peers.has(peerId)) return;
    const name = String(appData?.displayName || peerId);
    this.#peers.set(peerId, { name, producers: new Map() });
    this.#call.emit('peerJoined', { peerId, name });
  }

  #removePeer(peerId) {
    if (!this.#peers.delete(peerId)) return;
    for (const [id, entry] of [...this.#consumers]) {
      if (entry.peerId === peerId) this.#removeConsumer(id);
    }
    this.#call.emit('peerLeft', { peerId });
  }

  #addProducer({ peerId, producerId, kind, appData }) {
    const peer = this.#peers.get(peerId);
    if (this.#closed || !peer || peer.producers.has(producerId)) return;
    const source = appData?.source ?? (kind === 'audio' ? 'mic' : 'camera');
    const producer = { source, paused: false };
    peer.producers.set(producerId, producer);
    this.#consume(peerId, producerId, producer).catch((error) => {
      // It may have ended while we asked for it, or our transport, and is asked for again.
      if (!this.#closed && peer.producers.get(producerId) === producer) this.#call.complain(error);
    });
  }

  #removeProducer({ peerId, producerId }) {
    this.#peers.get(peerId)?.producers.delete(producerId);
    for (const [id, { consumer }] of [...this.#consumers]) {
      if (consumer.producerId === producerId) this.#removeConsumer(id);
    }
  }

  // -- consumers -------------------------------------------------------------------------------

  async #consume(peerId, producerId, producer) {
    await this.#ready.promise;
    const transport = await this.#receiveTransport();
    // Paused at first: the first key frame should not come before the browser can take it.
    const answer = await this.#call.request('consume', {
      producerId,
      transportId: transport.id,
      rtpCapabilities: this.#device.recvRtpCapabilities,
      paused: true,
    });
    const { id, kind, rtpParameters } = answer;
    // Set before the next wait: a change that is notified meanwhile then wins.
    producer.paused = answer.producerPaused;
    // One stream id per peer lets the browser keep its audio and video in step.
    const consumer = await transport.consume({ id, producerId, kind, rtpParameters, streamId: peerId });
    const gone = this.#peers.get(peerId)?.producers.get(producerId) !== producer;
    if (this.#closedEarly.delete(id) || this.#closed) return consumer.close();
    if (gone) {
      consumer.close();
      // Unless the server knows, since the producer is gone there too.
      return this.#call.request('closeConsumer', { consumerId: id }).catch(() => {});
    }

    const { source } = producer;
    const entry = { consumer, peerId, source };
    this.#consumers.set(id, entry);
    consumer.on('transportclose', () => this.#removeConsumer(id));
    this.#call.emit('trackStarted', { peerId, source, track: consumer.track });
    this.#tellPaused(entry, producer.paused);
    await this.#call.request('resumeConsumer', { consumerId: id });
    return undefined;
  }

  #consumerClosed(id) {
    if (this.#consumers.has(id)) this.#removeConsumer(id);
    else this.#closedEarly.add(id);
  }

  #removeConsumer(id) {
    const entry = this.#consumers.get(id);
    if (!entry) return;
    this.#consumers.delete(id);
    const { consumer, peerId, source } = entry;
    consumer.close();
    this.#call.emit('trackEnded', { peerId, source, track: consumer.track });
  }

  #setPaused(producerId, paused) {
    for (const { producers } of this.#peers.values()) {
      const producer = producers.get(producerId);
      if (producer) producer.paused = paused;
    }
    for (const entry of this.#consumers.values()) {
      if (entry.consumer.producerId === producerId) this.#tellPaused(entry, paused);
    }
  }

  #layersChanged({ consumerId, spatialLayer, temporalLayer }) {
    const layers = spatialLayer === null ? undefined : { spatialLayer, temporalLayer };
    this.#note(consumerId, { layers });
  }

  // For whoever looks at a tile's statistics.
  #note(consumerId, news) {
    const entry = this.#consumers.get(consumerId);
    if (entry) Object.assign(entry, news);
  }

  #tellPaused({ consumer, peerId, source }, paused) {
    this.#call.emit('trackPaused', { peerId, source, kind: consumer.kind, paused });
  }

  // -- the transport ---------------------------------------------------------------------------

  // The first two producers ask for it at the same moment.
  #receiveTransport() {
    this.#transport = this.#kept.get();
    return this.#transport;
  }

  // Closing the old transport has ended its consumers, which took their tracks off the tiles.
  #consumeAll() {
    for (const [peerId, peer] of this.#peers) {
      const producers = [...peer.producers];
      peer.producers.clear();
      for (const [producerId, { source }] of producers) {
        this.#addProducer({ peerId, producerId, appData: { source } });
      }
    }
  }
}
