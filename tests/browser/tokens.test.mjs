// Tokens and administrators, as the unmodified client libraries meet them.

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startServer } from './lib/server.mjs';
import { protooClient, socketIoClient } from './lib/signaling.mjs';

const secret = randomBytes(32);
let folder, server;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shardcast-'));
  const file = join(folder, 'keys.json');
  const key = { kty: 'oct', kid: 'test', alg: 'HS256', k: secret.toString('base64url') };
  await writeFile(file, JSON.stringify({ keys: [key] }));
  server = await startServer({ AUTH_KEYS_FILE: file });
});

after(async () => {
  await server?.stop();
  await rm(folder, { recursive: true });
});

// A JWT by hand (RFC 7515 §3.1).
function sign(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 60;
  const signed = `${part({ alg: 'HS256', kid: 'test' })}.${part({ exp, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

const enter = (client, peerId, claims) =>
  client.request('joinRoom', { roomId: 'r', peerId, token: claims && sign(claims) });

for (const [library, connect] of Object.entries({ protooClient, socketIoClient })) {
  test(`${library}: a token opens its room, and an administrator removes`, { timeout: 30_000 }, async (t) => {
    const [ada, bob] = [await connect(server.url), await connect(server.url)];
    t.after(() => [ada, bob].forEach((client) => client.close()));
    await assert.rejects(enter(ada, 'ada'), { code: 401 });
    await assert.rejects(enter(ada, 'ada', { room: 'r', exp: 1 }), { code: 401 });
    await assert.rejects(enter(ada, 'ada', { room: 's' }), { code: 403 });
    await assert.rejects(enter(ada, 'ada', { room: 'r', sub: 'bob' }), { code: 403 });
    assert.deepEqual(await enter(ada, 'ada', { room: 'r', sub: 'ada', subscribe: true }), { peers: [] });
    await enter(bob, 'bob', { room: 'r', administer: true });

    await assert.rejects(ada.request('removePeer', { peerId: 'bob' }), { code: 403 });
    await assert.rejects(bob.request('createWebRtcTransport', {}), { code: 403 });
    assert.deepEqual(await bob.request('removePeer', { peerId: 'ada' }), {});
    const left = { peerId: 'ada', reason: 'removed' };
    for (const client of [ada, bob]) assert.deepEqual(await client.notified('peerLeft', left), left);
    assert.deepEqual(await bob.request('closeRoom', {}), {});
  });
}
