// Who is speaking: measures loudness here in the page, so that it works with any server.

// Full scale is 1. Speech is well above this, a quiet room's noise below.
const SPEAKING = 0.02;
// Words have gaps; the mark should not flicker with them (milliseconds).
const HOLD = 700;
const PERIOD = 120;

/** Watches audio tracks and reports who begins and ends speaking. */
export class Levels {
  #context = null;
  #watched = new Map();
  #timer = null;
  #report;

  /** `report(key, speaking)` is called on each change. */
  constructor(report) {
    this.#report = report;
  }

  /** Starts to watch a track under a key; a track that was there under the same key is replaced. */
  watch(key, track) {
    this.unwatch(key);
    this.#context ??= new AudioContext();
    // Without a click on the page yet, the context sleeps until `wake`.
    this.wake();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    const input = this.#context.createMediaStreamSource(new MediaStream([track]));
    input.connect(analyser);
    this.#watched.set(key, { input, analyser, heardAt: -Infinity, speaking: false });
    this.#timer ??= setInterval(() => this.#measure(), PERIOD);
  }

  unwatch(key) {
    const entry = this.#watched.get(key);
    if (!entry) return;
    entry.input.disconnect();
    this.#watched.delete(key);
    if (entry.speaking) this.#report(key, false);
  }

  /** To be called on a click, which is what lets a page use audio. */
  wake() {
    this.#context?.resume().catch(() => {});
  }

  /** Forgets every track. */
  clear() {
    for (const key of [...this.#watched.keys()]) this.unwatch(key);
    clearInterval(this.#timer);
    this.#timer = null;
  }

  #measure() {
    const now = performance.now();
    const samples = new Float32Array(1024);
    for (const [key, entry] of this.#watched) {
      entry.analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      if (Math.sqrt(power) > SPEAKING) entry.heardAt = now;
      const speaking = now - entry.heardAt < HOLD;
      if (speaking !== entry.speaking) {
        entry.speaking = speaking;
        this.#report(key, speaking);
      }
    }
  }
}
