// The two client libraries behind one face: `request(method, data)` answers with the data or rejects
// with an Error that has a numeric `code`; `notified(method, fields)` waits for a notification.

import protoo from 'protoo-client';
import { io } from 'socket.io-client';
import { until } from './until.mjs';

const PATIENCE = 5000;

/** protoo-client over the WebSocket. */
export async function protooClient(url) {
  const transport = new protoo.WebSocketTransport(`${url.replace(/^http/, 'ws')}/ws`, { retry: { retries: 0 } });
  const peer = new protoo.Peer(transport);
  const inbox = new Inbox();
  peer.on('notification', ({ method, data }) => inbox.add(method, data));
  await new Promise((resolve, reject) => {
    peer.on('open', resolve);
    peer.on('close', () => reject(new Error('the WebSocket was not accepted')));
  });
  return {
    request: (method, data) => peer.request(method, data),
    notified: (method, fields) => inbox.next(method, fields),
    close: () => peer.close(),
  };
}

/** socket.io-client with its defaults: long polling first, then the upgrade to a WebSocket. */
export async function socketIoClient(url) {
  const socket = io(url, { reconnection: false, forceNew: true });
  const inbox = new Inbox();
  socket.onAny((method, data) => inbox.add(method, data));
  await new Promise((resolve, reject) => {
    socket.on('connect', resolve);
    socket.on('connect_error', reject);
  });
  return {
    request: async (method, data) => {
      const answer = await socket.timeout(PATIENCE).emitWithAck(method, data);
      if (!answer?.error) return answer;
      throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
    },
    notified: (method, fields) => inbox.next(method, fields),
    close: () => socket.close(),
  };
}

// Every notification that came; waiting takes the first one that fits out.
class Inbox {
  #received = [];

  add(method, data) {
    this.#received.push({ method, data });
  }

  async next(method, fields) {
    const fits = (entry) => entry.method === method &&
      Object.entries(fields).every(([key, value]) => entry.data?.[key] === value);
    const index = await until(`${method} ${JSON.stringify(fields)} among ${this.#names()}`, () => {
      const found = this.#received.findIndex(fits);
      return found >= 0 && { found };
    }, { timeout: PATIENCE, interval: 10 });
    return this.#received.splice(index.found, 1)[0].data;
  }

  #names() {
    return this.#received.map(({ method }) => method).join(', ') || 'nothing';
  }
}
