// One second's figures of a tile: what this browser measures, and what the server says.
//
//   bitrate (bit/s), loss (%), jitter (ms), frames (per second), layers {spatialLayer, temporalLayer},
//   score (0 to 10), events [{ago (s), what, why}]; what is not known is undefined.

/** Figures since `last`, and the totals that are the next call's `last` (null at first). */
export async function sample(call, { peerId, screen, own }, last) {
  const found = own ? sending(call, screen) : receiving(call, peerId, screen);
  if (!found) return { figures: {}, totals: null };
  const { id, track } = found;
  const server = (own ? ofProducer(call, id) : ofConsumer(call, found)).catch(() => ({}));
  const totals = { id, at: performance.now(), ...(await (own ? sent(track) : received(track))) };
  const before = last?.id === id ? last : null;
  return { figures: { ...since(before, totals), ...(await server) }, totals };
}

// A tile shows a picture and plays a sound; the picture says more.
function sending(call, screen) {
  const { producers } = call;
  const track = screen ? producers.get('screen') : producers.get('camera') ?? producers.get('mic');
  return track && { id: track.id, track };
}

function receiving(call, peerId, screen) {
  const entries = [...call.receiving?.consumers.values() ?? []].filter((entry) => entry.peerId === peerId);
  const of = (source) => entries.find((entry) => entry.source === source);
  const entry = screen ? of('screen') : of('camera') ?? of('mic');
  return entry && { id: entry.consumer.id, track: entry.consumer, entry };
}

// -- the browser -------------------------------------------------------------------------------

async function received(consumer) {
  const reports = [...(await consumer.getStats()).values()];
  const inbound = reports.find(({ type }) => type === 'inbound-rtp') ?? {};
  return {
    bytes: inbound.bytesReceived ?? 0,
    packets: inbound.packetsReceived ?? 0,
    lost: inbound.packetsLost ?? 0,
    jitter: inbound.jitter,
    frames: inbound.framesPerSecond,
  };
}

// One entry per simulcast encoding.
async function sent(producer) {
  const reports = [...(await producer.getStats()).values()];
  const all = (type, field) => reports.filter((report) => report.type === type)
    .map((report) => report[field]).filter((value) => value !== undefined);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const most = (values) => (values.length ? Math.max(...values) : undefined);
  return {
    bytes: sum(all('outbound-rtp', 'bytesSent')),
    packets: sum(all('outbound-rtp', 'packetsSent')),
    lost: sum(all('remote-inbound-rtp', 'packetsLost')),
    jitter: most(all('remote-inbound-rtp', 'jitter')),
    frames: most(all('outbound-rtp', 'framesPerSecond')),
  };
}

function since(last, now) {
  const figures = { jitter: now.jitter === undefined ? undefined : now.jitter * 1000, frames: now.frames };
  if (!last) return figures;
  const [packets, lost] = [now.packets - last.packets, Math.max(0, now.lost - last.lost)];
  figures.bitrate = (now.bytes - last.bytes) * 8000 / (now.at - last.at);
  if (packets + lost > 0) figures.loss = 100 * lost / (packets + lost);
  return figures;
}

// -- the server --------------------------------------------------------------------------------

async function ofConsumer(call, { id, entry }) {
  // What was notified holds until the server has answered.
  const told = { layers: entry.layers, score: entry.score };
  const [outbound] = await call.request('getConsumerStats', { consumerId: id }).catch(() => []);
  if (!outbound) return told;
  const events = (outbound.events ?? []).map(({ timestamp, what, why }) =>
    ({ ago: Math.round((outbound.timestamp - timestamp) / 1000), what, why }));
  return { layers: outbound.currentLayers ?? undefined, score: outbound.score, events };
}

async function ofProducer(call, producerId) {
  const encodings = await call.request('getProducerStats', { producerId });
  const flowing = encodings.filter(({ bitrate }) => bitrate > 0);
  if (flowing.length === 0) return {};
  return {
    layers: { spatialLayer: flowing.length - 1 },
    score: Math.min(...flowing.map(({ score }) => score)),
  };
}
