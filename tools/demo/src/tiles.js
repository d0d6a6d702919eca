// One tile per participant, and one more for each shared screen.

import { Panel } from './panel.js';

/** The tiles on the page. A tile is named by the peer and by what it shows. */
export class Tiles {
  #root;
  #tiles = new Map();
  #blocked;
  #speaker = null;

  /** `blocked()` is called when the browser refuses to play sound without a click. */
  constructor(root, blocked) {
    this.#root = root;
    this.#blocked = blocked;
  }

  /** Shows a participant, with or without media. */
  add(peerId, name, { own = false, screen = false } = {}) {
    const key = keyOf(peerId, screen);
    if (this.#tiles.has(key)) return this.#tiles.get(key);

    const figure = document.createElement('figure');
    figure.className = 'tile dark';
    figure.classList.toggle('own', own);
    figure.classList.toggle('screen', screen);
    figure.classList.toggle('speaking', !screen && peerId === this.#speaker);
    figure.dataset.peer = peerId;

    const video = document.createElement('video');
    video.autoplay = true;
    video.playsInline = true;
    // One's own voice must not come back out of the loudspeaker.
    video.muted = own;
    video.srcObject = new MediaStream();

    const caption = document.createElement('figcaption');
    const who = own ? `${name} (you)` : name;
    caption.textContent = screen ? `${who}: screen` : who;

    const picture = document.createElement('div');
    picture.className = 'picture';
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'statistics';
    button.textContent = 'Statistics';
    button.setAttribute('aria-pressed', 'false');

    picture.append(video, caption, button);
    figure.append(picture);
    this.#root.append(figure);
    const tile = { peerId, screen, own, figure, video, button, panel: null };
    button.addEventListener('click', () => toggleStatistics(tile));
    this.#tiles.set(key, tile);
    return tile;
  }

  remove(peerId, screen) {
    const key = keyOf(peerId, screen);
    const tile = this.#tiles.get(key);
    if (!tile) return;
    tile.video.srcObject = null;
    tile.figure.remove();
    this.#tiles.delete(key);
  }

  clear() {
    for (const tile of this.#tiles.values()) {
      tile.video.srcObject = null;
      tile.figure.remove();
    }
    this.#tiles.clear();
  }

  /** Plays a track in a tile. Audio and video of one peer share a stream, which keeps lips in step. */
  attach(peerId, screen, track) {
    const tile = this.#tiles.get(keyOf(peerId, screen));
    if (!tile) return;
    tile.video.srcObject.addTrack(track);
    if (track.kind === 'video') tile.figure.classList.remove('dark');
    this.#play(tile.video);
  }

  detach(peerId, screen, track) {
    const tile = this.#tiles.get(keyOf(peerId, screen));
    if (!tile) return;
    tile.video.srcObject.removeTrack(track);
    if (track.kind === 'video') tile.figure.classList.add('dark');
  }

  /** Marks a tile's sound as muted or its picture as paused. */
  setPaused(peerId, screen, kind, paused) {
    const tile = this.#tiles.get(keyOf(peerId, screen));
    tile?.figure.classList.toggle(kind === 'audio' ? 'silent' : 'dark', paused);
  }

  /** Marks who speaks; null: nobody. */
  setSpeaker(peerId) {
    this.#speaker = peerId;
    for (const tile of this.#tiles.values()) {
      tile.figure.classList.toggle('speaking', !tile.screen && tile.peerId === peerId);
    }
  }

  /** The tiles whose statistics are open, each with its panel. */
  get inspected() {
    return [...this.#tiles.values()].filter(({ panel }) => panel);
  }

  /** Tries again to play everything, from inside a click. */
  playAll() {
    for (const { video } of this.#tiles.values()) this.#play(video);
  }

  #play(video) {
    video.play().catch((error) => {
      // Other failures (the element was emptied meanwhile) mend themselves with the next track.
      if (error.name === 'NotAllowedError') this.#blocked();
    });
  }
}

function toggleStatistics(tile) {
  if (tile.panel) {
    tile.panel.element.remove();
    tile.panel = null;
  } else {
    tile.panel = new Panel();
    tile.figure.append(tile.panel.element);
  }
  tile.button.setAttribute('aria-pressed', String(tile.panel !== null));
}

function keyOf(peerId, screen) {
  return `${peerId} ${screen ? 'screen' : 'person'}`;
}
