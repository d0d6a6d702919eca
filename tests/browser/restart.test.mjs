// A server is stopped under a call and started anew: the pages say so, wait for it, and go on by themselves.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium, openDemo, receivedWhen } from './lib/chromium.mjs';
import { startServer } from './lib/server.mjs';
import { until } from './lib/until.mjs';

const CALL = { room: 'r', join: '1', width: '320', height: '240', fps: '15', simulcast: '0' };

let browser;
let server;
before(async () => {
  server = await startServer();
  browser = await launchChromium();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test('a call goes on with the next server', { timeout: 120_000 }, async () => {
  const tabs = [];
  for (const peer of ['ada', 'bob']) tabs.push(await openDemo(browser, server, { ...CALL, peer }));
  const flows = (tab) => receivedWhen('media flows', tab, (lines) =>
    lines.length === 2 && lines.every(({ packetsReceived }) => packetsReceived > 0));
  await Promise.all(tabs.map(flows));

  await server.stop();
  for (const { page, notifications } of tabs) {
    await page.locator('#error', { hasText: 'The server is about to stop.' }).waitFor();
    await until('the page waits', () => page.evaluate(() => globalThis.shardcast.call.state === 'reconnecting'));
    assert.ok(notifications.some(({ method }) => method === 'draining'));
  }

  const { HTTP_PORT } = server.settings;
  server = await startServer({ HTTP_PORT });
  for (const { page } of tabs) {
    await until('the page has joined', () => page.evaluate(() => globalThis.shardcast.call.state === 'joined'));
    await page.locator('#error').waitFor({ state: 'hidden' });
  }
  await Promise.all(tabs.map(flows));
  for (const { errors } of tabs) assert.deepEqual(errors, []);
});
