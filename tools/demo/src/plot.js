// A small line plot with a caption and its newest value, in SVG.

const SVG = 'http://www.w3.org/2000/svg';
// One minute at one sample a second.
const SAMPLES = 60;
const HEIGHT = 20;

/** One plot; `element` is what goes into the page. */
export class Plot {
  #value = document.createElement('b');
  #series;

  /** `scales`: one line per entry, each with the least value that reaches the top. */
  constructor(caption, scales) {
    this.element = document.createElement('div');
    this.element.className = 'plot';
    const label = document.createElement('span');
    label.textContent = caption;
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', `0 -1 ${SAMPLES - 1} ${HEIGHT + 2}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    this.#series = scales.map((top) => {
      const path = document.createElementNS(SVG, 'path');
      svg.append(path);
      return { top, path, values: [] };
    });
    this.element.append(label, this.#value, svg);
  }

  /** Adds a second: one value per line, undefined where there is none, and what to say about them. */
  add(values, text) {
    this.#value.textContent = text;
    for (const [index, { top, path, values: line }] of this.#series.entries()) {
      line.push(values[index]);
      if (line.length > SAMPLES) line.shift();
      path.setAttribute('d', draw(line, top));
    }
  }
}

// The newest sample is at the right edge; a gap breaks the line.
function draw(values, least) {
  const top = Math.max(least, ...values.filter((value) => value !== undefined));
  const first = SAMPLES - values.length;
  let pen = 'M';
  let path = '';
  for (const [index, value] of values.entries()) {
    if (value === undefined) {
      pen = 'M';
      continue;
    }
    const y = HEIGHT * (1 - value / top);
    // A lone sample would have no length, and so not show.
    path += `${pen}${first + index - (pen === 'M' ? 0.5 : 0)} ${y.toFixed(1)}L${first + index} ${y.toFixed(1)}`;
    pen = 'L';
  }
  return path;
}
