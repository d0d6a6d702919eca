// What really arrived, in the browser's own words: for the tests, and for a look from the console.

/** One line per consumer with the figures that say whether media flows. */
export async function receivedStats(consumers) {
  return Promise.all([...consumers.values()].map(async ({ consumer, peerId, source }) => {
    const reports = [...(await consumer.getStats()).values()];
    const inbound = reports.find(({ type }) => type === 'inbound-rtp') ?? {};
    const codec = reports.find(({ id }) => id === inbound.codecId);
    return {
      id: consumer.id,
      producerId: consumer.producerId,
      peerId,
      source,
      kind: consumer.kind,
      mimeType: codec?.mimeType ?? null,
      packetsReceived: inbound.packetsReceived ?? 0,
      packetsLost: inbound.packetsLost ?? 0,
      framesDecoded: inbound.framesDecoded ?? 0,
      frameWidth: inbound.frameWidth ?? 0,
      frameHeight: inbound.frameHeight ?? 0,
      keyFramesDecoded: inbound.keyFramesDecoded ?? 0,
      freezeCount: inbound.freezeCount ?? 0,
      totalAudioEnergy: inbound.totalAudioEnergy ?? 0,
    };
  }));
}
