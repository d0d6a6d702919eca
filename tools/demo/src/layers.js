// Stops the layers that nobody wants. ORTC has no message for it, so the server notifies
// `producerLayersWanted {producerId, spatialLayer}`, and the page applies it to its sender.
//
// Needs nothing else of this page: with mediasoup-client, call
// `applyLayersWanted(producer.rtpSender, data.spatialLayer)` for the producer that is named.

// By sender: the layer wished last, and the work on it.
const pending = new WeakMap();

/**
 * Sends encodings up to `spatialLayer` (counted from 0, lowest first) and stops those above; null stops
 * all of them. They stay negotiated: a later call brings them back, beginning with a key frame. An
 * encoding with layers inside (SVC) goes on or stops as a whole. Of calls in quick succession the
 * last one counts; the promise rejects if the browser refuses.
 */
export function applyLayersWanted(sender, spatialLayer) {
  const work = pending.get(sender);
  if (work) {
    work.wanted = spatialLayer;
    return work.done;
  }
  const begun = { wanted: spatialLayer, done: null };
  pending.set(sender, begun);
  begun.done = settle(sender, begun);
  return begun.done;
}

async function settle(sender, work) {
  try {
    // One at a time: a browser takes parameters back only if nobody touched them since they were read.
    for (let applied; applied !== work.wanted;) {
      applied = work.wanted;
      const parameters = sender.getParameters();
      const wanted = parameters.encodings.map((_, layer) => applied !== null && layer <= applied);
      if (parameters.encodings.every(({ active }, layer) => active === wanted[layer])) continue;
      parameters.encodings.forEach((encoding, layer) => { encoding.active = wanted[layer]; });
      await sender.setParameters(parameters);
    }
  } finally {
    pending.delete(sender);
  }
}
