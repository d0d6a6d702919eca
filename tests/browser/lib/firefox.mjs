// Firefox ESR over its own WebDriver BiDi port: a small client, so that no driver has to be installed.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './until.mjs';

const PREFERENCES = {
  // A made-up camera and microphone, given without a question, to pages that run unattended.
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  // Plain addresses in candidates: there is no mDNS in the test's network.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // The codec download that Firefox would begin by itself.
  'media.gmp-manager.updateEnabled': false,
  'media.gmp-gmpopenh264.autoupdate': false,
  // No first-run pages, updates, telemetry or any other call to the outside.
  'app.normandy.enabled': false,
  'app.update.disabledForTesting': true,
  'browser.aboutwelcome.enabled': false,
  'browser.newtabpage.enabled': false,
  'browser.safebrowsing.downloads.remote.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'browser.startup.page': 0,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.push.connection.enabled': false,
  'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.proxy.type': 0,
  'services.settings.server': 'http://localhost:1/',
  'toolkit.telemetry.enabled': false,
};

const START_WITHIN = 60_000;
const ANSWER_WITHIN = 60_000;

/** Starts Firefox with a new profile. */
export async function startFirefox(port) {
  const profile = await mkdtemp(join(tmpdir(), 'shardcast-firefox-'));
  const lines = Object.entries(PREFERENCES).map(([name, value]) =>
    `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`);
  await writeFile(join(profile, 'user.js'), lines.join('\n'));
  const child = spawn(
    process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr',
    ['--headless', '--no-remote', '--remote-debugging-port', String(port), '--profile', profile],
    // A group of its own, so that its content processes end with it. HOME keeps its caches in the profile.
    { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: { ...process.env, HOME: profile, MOZ_CRASHREPORTER_DISABLE: '1' } },
  );
  const firefox = new Firefox(child, profile);
  try {
    await firefox.connect(port);
  } catch (error) {
    await firefox.stop();
    throw error;
  }
  return firefox;
}

class Firefox {
  #child;
  #profile;
  #socket = null;
  #log = '';
  #nextId = 1;
  #waiting = new Map();

  constructor(child, profile) {
    this.#child = child;
    this.#profile = profile;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#log += text; });
    }
    process.once('exit', () => this.#kill('SIGKILL'));
  }

  async connect(port) {
    // It says so on stderr when its port is open.
    await until(`Firefox listens (${this.#log})`, () => {
      if (this.#child.exitCode !== null) throw new Error(`Firefox ended: ${this.#log}`);
      return this.#log.includes('WebDriver BiDi listening');
    }, { timeout: START_WITHIN });
    this.#socket = new WebSocket(`ws://127.0.0.1:${port}/session`);
    this.#socket.addEventListener('message', ({ data }) => this.#answered(JSON.parse(data)));
    await new Promise((resolve, reject) => {
      this.#socket.addEventListener('open', resolve);
      this.#socket.addEventListener('error', () => reject(new Error('Firefox refused the BiDi connection')));
    });
    const { capabilities } = await this.#command('session.new', { capabilities: {} });
    this.version = `${capabilities.browserName} ${capabilities.browserVersion}`;
  }

  /** Opens a page in a new tab. Not until "complete": video elements hold that back until media arrives. */
  async open(url) {
    const { context } = await this.#command('browsingContext.create', { type: 'tab' });
    await this.#command('browsingContext.navigate', { context, url, wait: 'interactive' });
    return {
      /** Runs an expression in the page and gives its value, which must survive JSON. */
      evaluate: async (expression) => {
        const { type, result, exceptionDetails } = await this.#command('script.evaluate', {
          expression: `(async () => JSON.stringify(await (${expression})) ?? 'null')()`,
          target: { context },
          awaitPromise: true,
        });
        if (type === 'exception') throw new Error(exceptionDetails.text);
        return JSON.parse(result.value);
      },
    };
  }

  async stop() {
    this.#socket?.close();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = once(this.#child, 'exit');
      this.#kill('SIGTERM');
      const late = setTimeout(() => this.#kill('SIGKILL'), 5000);
      await gone;
      clearTimeout(late);
    }
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #kill(signal) {
    try {
      process.kill(-this.#child.pid, signal);
    } catch {
      // Already gone.
    }
  }

  #command(method, params) {
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer to ${method}`)), ANSWER_WITHIN);
      this.#waiting.set(id, { resolve, reject, late });
    });
  }

  #answered({ id, type, result, error, message }) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.late);
    if (type === 'success') waiting.resolve(result);
    else waiting.reject(new Error(`${error}: ${message}`));
  }
}
