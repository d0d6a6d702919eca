// Puts a browser behind a bad line: starts tools/impair between it and the server.
//
// The page learns the server's media address from the signaling alone. So the line needs nothing from the
// server or the page: on the way to the page, each ICE candidate is changed to the relay's address.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { openTab } from './chromium.mjs';

const binary = process.env.IMPAIR_BIN ?? fileURLToPath(new URL('../../../target/debug/impair', import.meta.url));
const ANSWER_WITHIN = 5000;

/**
 * Starts a line to all media ports of `server`. `up` (from the browser) and `down` are its settings, such as
 * `rate=500k delay=30ms loss=2%`: tools/impair/README.md lists them. `seed` repeats a run's decisions.
 */
export async function startRelay(server, { up = '', down = '', seed = 1 } = {}) {
  const { ANNOUNCED_IP, RTC_MIN_PORT, RTC_MAX_PORT } = server.settings;
  const maps = [];
  for (let port = Number(RTC_MIN_PORT); port <= Number(RTC_MAX_PORT); port += 1) {
    maps.push('--map', `127.0.0.1:0=${ANNOUNCED_IP}:${port}`);
  }
  const flags = ['--json', '--seed', String(seed), '--up', up, '--down', down];
  const relay = new Relay(spawn(binary, [...flags, ...maps], { stdio: ['pipe', 'pipe', 'inherit'] }));
  await relay.begun();
  return relay;
}

class Relay {
  #child;
  #waiting = [];
  #failure = null;
  // "address:port" of the server -> the same of the relay.
  #places = new Map();

  constructor(child) {
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (line) => this.#waiting.shift()?.resolve(JSON.parse(line)));
    child.on('error', (error) => this.#fail(`${binary} does not start: ${error.message}`));
    child.on('exit', (code, signal) => this.#fail(`the relay ended (${signal ?? code})`));
    process.once('exit', () => child.kill('SIGKILL'));
  }

  async begun() {
    const { maps } = await this.#answer();
    for (const { listen, target } of maps) this.#places.set(target, listen);
  }

  /** Changes the line: `down rate=500k`, `both loss=2%`. */
  async change(command) {
    const { error } = await this.#ask(command);
    if (error) throw new Error(error);
  }

  /** What the line did, in all and since the last call: tools/impair/README.md lists the fields. */
  async stats() {
    return (await this.#ask('stats')).stats;
  }

  /** Ends it; gives the last figures. */
  async stop() {
    if (this.#failure) throw new Error(this.#failure);
    const { stats } = await this.#ask('quit');
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
    return stats;
  }

  /** Makes every page of a context, opened from now on, send its media through this line. */
  async place(context) {
    await context.routeWebSocket(/\/ws\?/, (page) => {
      const server = page.connectToServer();
      server.onMessage((text) => page.send(this.#moved(text)));
    });
  }

  #moved(text) {
    const message = JSON.parse(text);
    for (const candidate of message.data?.iceCandidates ?? []) {
      const place = this.#places.get(`${candidate.address ?? candidate.ip}:${candidate.port}`);
      if (!place) throw new Error(`no line to ${JSON.stringify(candidate)}`);
      const [address, port] = place.split(':');
      if ('ip' in candidate) candidate.ip = address;
      if ('address' in candidate) candidate.address = address;
      candidate.port = Number(port);
    }
    return JSON.stringify(message);
  }

  #ask(command) {
    const answer = this.#answer();
    this.#child.stdin.write(`${command}\n`);
    return answer;
  }

  // Answers come in the order of the questions.
  #answer() {
    if (this.#failure) return Promise.reject(new Error(this.#failure));
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('the relay does not answer')), ANSWER_WITHIN);
      const settled = (settle) => (value) => { clearTimeout(late); settle(value); };
      this.#waiting.push({ resolve: settled(resolve), reject: settled(reject) });
    });
  }

  #fail(reason) {
    this.#failure = reason;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error(reason));
  }
}

/** Opens the demo page, like `openDemo`, behind a relay if there is one. */
export async function openBehind(relay, browser, server, query) {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  await relay?.place(context);
  return openTab(context, server, query);
}
