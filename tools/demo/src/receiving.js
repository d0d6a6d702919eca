// The receiving half of one connection: who is in the room, and their media.

/** Lives from a join to the loss of that connection; a new join makes a new one. */
export class Receiving {
  #call;
  #device = null;
  #closed = false;
  // Resolved when the device is loaded; producers that are told of earlier wait for it.
  #ready = Promise.withResolvers();
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
    this.#transport?.then((transport) => transport.close(), () => {});
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
      case 'transportClosed': return this.#rebuild(data.transportId);
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
    peer.producers.set(producerId, { source, paused: false });
    this.#consume(peerId, producerId).catch((error) => {
      // It may have ended while we asked for it.
      if (!this.#closed && peer.producers.has(producerId)) this.#call.complain(error);
    });
  }

  #removeProducer({ peerId, producerId }) {
    this.#peers.get(peerId)?.producers.delete(producerId);
    for (const [id, { consumer }] of [...this.#consumers]) {
      if (consumer.producerId === producerId) this.#removeConsumer(id);
    }
  }

  // -- consumers -------------------------------------------------------------------------------

  async #consume(peerId, producerId) {
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
    const producer = this.#peers.get(peerId)?.producers.get(producerId);
    // Set before the next wait: a change that is notified meanwhile then wins.
    if (producer) producer.paused = answer.producerPaused;
    // One stream id per peer lets the browser keep its audio and video in step.
    const consumer = await transport.consume({ id, producerId, kind, rtpParameters, streamId: peerId });
    const gone = this.#closed || this.#peers.get(peerId)?.producers.get(producerId) !== producer;
    if (gone || !producer || this.#closedEarly.delete(id)) return consumer.close();

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

  // Kept as a promise: the first two producers ask for it at the same moment.
  #receiveTransport() {
    if (!this.#transport) {
      const made = this.#call.createTransport('recv');
      this.#transport = made;
      // A failure is told to those who wait for it now; the next one tries anew.
      made.catch(() => { if (this.#transport === made) this.#transport = null; });
    }
    return this.#transport;
  }

  async #rebuild(transportId) {
    const old = await this.#transport;
    if (this.#closed || old?.id !== transportId) return;
    this.#transport = null;
    // Closing it ends its consumers, which takes their tracks off the tiles.
    old.close();
    for (const [peerId, peer] of this.#peers) {
      const producers = [...peer.producers];
      peer.producers.clear();
      for (const [producerId, { source }] of producers) {
        this.#addProducer({ peerId, producerId, appData: { source } });
      }
    }
  }
}
