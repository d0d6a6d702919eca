// Starts the real server on ports of its own and ends it again by its process id.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createWriteStream, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './until.mjs';

const root = fileURLToPath(new URL('../../../', import.meta.url));
// Every server's log stays here for whoever looks into a failure.
const logs = `${root}target/test-logs/`;
const binary = process.env.SHARDCAST_BIN ?? `${root}target/debug/shardcast`;
const UDP_PORTS = 8;
// The server promises to end within 4 s of SIGTERM, beside DRAIN_TIMEOUT.
const STOP_WITHIN = 5000;

/** Starts the server; `env` adds to or replaces the settings below. */
export async function startServer(env = {}) {
  const port = env.HTTP_PORT ?? await freeTcpPort();
  const first = await freeUdpRange(UDP_PORTS);
  const settings = {
    HTTP_IP: '127.0.0.1',
    HTTP_PORT: String(port),
    ANNOUNCED_IP: '127.0.0.1',
    RTC_MIN_PORT: String(first),
    RTC_MAX_PORT: String(first + UDP_PORTS - 1),
    WORKERS: '2',
    // What browsers still hold open at the end of a test need not be waited for.
    DRAIN_TIMEOUT: '0',
    ...env,
  };
  const child = spawn(binary, { env: { PATH: process.env.PATH, ...settings }, stdio: ['ignore', 'pipe', 'pipe'] });
  const server = new Server(child, port, settings);
  await server.healthy();
  return server;
}

class Server {
  #child;
  #log = '';
  #stopping = false;
  #died = null;

  constructor(child, port, settings) {
    this.#child = child;
    this.settings = settings;
    this.url = `http://localhost:${port}`;
    mkdirSync(logs, { recursive: true });
    const file = createWriteStream(`${logs}${basename(process.argv[1], '.mjs')}-${port}.log`);
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(file, { end: false });
      stream.setEncoding('utf8').on('data', (text) => { this.#log += text; });
    }
    child.on('error', (error) => { this.#died = `${binary} does not start: ${error.message}`; });
    child.on('exit', (code, signal) => {
      if (!this.#stopping) this.#died = `the server ended early (${signal ?? code})`;
    });
    // A test run that is broken off leaves no server behind.
    process.once('exit', () => child.kill('SIGKILL'));
  }

  get pid() { return this.#child.pid; }
  get log() { return this.#log; }

  async healthy() {
    await until('the server answers', async () => {
      if (this.#died) return true;
      return (await fetch(`${this.url}/api/health`)).ok;
    }, { timeout: 15_000, interval: 50 });
    this.assertAlive();
  }

  /** Throws, with the log, if the server ended by itself. */
  assertAlive() {
    if (this.#died) throw new Error(`${this.#died}\n${this.#log}`);
  }

  /** One REST call: `{status, body}`, the body parsed if there is one. */
  async rest(method, path, body) {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : null };
  }

  /** What REST says about a room, counted: peers by id, producers, consumers. */
  async roomTruth(roomId) {
    const { status, body } = await this.rest('GET', `/api/rooms/${encodeURIComponent(roomId)}`);
    if (status === 404) return { peers: [], producers: 0, consumers: 0 };
    const count = (what) => body.peers.reduce((sum, peer) => sum + peer[what].length, 0);
    return {
      peers: body.peers.map(({ peerId }) => peerId).sort(),
      producers: count('producers'),
      consumers: count('consumers'),
    };
  }

  /** Ends the server as an operator would, and checks that it ends well. */
  async stop() {
    this.assertAlive();
    this.#stopping = true;
    this.#child.kill('SIGTERM');
    const late = setTimeout(() => this.#child.kill('SIGKILL'), STOP_WITHIN);
    const [code, signal] = await once(this.#child, 'exit');
    clearTimeout(late);
    if (code !== 0) throw new Error(`the server did not stop in order (${signal ?? code})\n${this.#log}`);
  }
}

async function freeTcpPort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

// A run of free ports: below Linux's ephemeral range, so that no outgoing socket takes one meanwhile.
async function freeUdpRange(count) {
  for (;;) {
    const first = 12_000 + Math.floor(Math.random() * 19_000);
    const ports = Array.from({ length: count }, (_, index) => first + index);
    if ((await Promise.all(ports.map(udpPortIsFree))).every(Boolean)) return first;
  }
}

function udpPortIsFree(port) {
  return new Promise((resolve) => {
    const probe = createSocket('udp4');
    probe.once('error', () => resolve(false));
    probe.bind(port, '0.0.0.0', () => probe.close(() => resolve(true)));
  });
}
