// The statistics of one tile: six plots, and what the server did lately and why.

import { Plot } from './plot.js';

const RECENT = 3;

/** Made when the tile's statistics are opened, dropped when they are closed. */
export class Panel {
  #bitrate = new Plot('Bitrate', [100_000]);
  #loss = new Plot('Loss', [5]);
  #jitter = new Plot('Jitter', [50]);
  #frames = new Plot('Frames/s', [30]);
  #layers = new Plot('Layers', [2, 2]);
  #score = new Plot('Score', [10]);
  #events = document.createElement('ul');
  /** What the last sample left for the next: see figures.js. */
  totals = null;
  busy = false;

  constructor() {
    this.element = document.createElement('div');
    this.element.className = 'panel';
    const plots = [this.#bitrate, this.#frames, this.#loss, this.#jitter, this.#layers, this.#score];
    this.element.append(...plots.map(({ element }) => element), this.#events);
  }

  /** Adds one second's figures, named as in figures.js. */
  show({ bitrate, loss, jitter, frames, layers, score, events = [] }) {
    this.#bitrate.add([bitrate], rate(bitrate));
    this.#loss.add([loss], `${fixed(loss, 1)} %`);
    this.#jitter.add([jitter], `${fixed(jitter, 0)} ms`);
    this.#frames.add([frames], fixed(frames, 0));
    const { spatialLayer, temporalLayer } = layers ?? {};
    const temporal = temporalLayer === undefined ? '' : ` T${temporalLayer}`;
    this.#layers.add([spatialLayer, temporalLayer], spatialLayer === undefined ? '–' : `S${spatialLayer}${temporal}`);
    this.#score.add([score], fixed(score, 0));
    this.#events.replaceChildren(...events.slice(-RECENT).reverse().map(line));
  }
}

function line({ ago, what, why }) {
  const item = document.createElement('li');
  item.textContent = `${ago} s ago: ${words(what)} (${words(why)})`;
  return item;
}

// `bandwidthShort` -> `bandwidth short`
function words(name) {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function rate(bitrate) {
  if (bitrate === undefined) return '–';
  return bitrate < 1_000_000 ? `${(bitrate / 1000).toFixed(0)} kbit/s` : `${(bitrate / 1_000_000).toFixed(1)} Mbit/s`;
}

function fixed(value, digits) {
  return value === undefined ? '–' : value.toFixed(digits);
}
