// The demo page as a person uses it: two tabs are a call, the screen can be shared, a phone can show it.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { hasGrown, launchChromium, openTab, receivedWhen } from './lib/chromium.mjs';
import { startServer } from './lib/server.mjs';
import { until } from './lib/until.mjs';

// Pictures for a human eye; git ignores `target/`.
const pictures = fileURLToPath(new URL('../../target/screenshots/', import.meta.url));

let browser;
let server;
before(async () => {
  await mkdir(pictures, { recursive: true });
  server = await startServer({ WORKERS: '2' });
  browser = await launchChromium();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

async function joinByHand(context, name) {
  const tab = await openTab(context, server, { width: '640', height: '360' });
  await tab.page.fill('#name', name);
  await tab.page.click('#lobby button[type=submit]');
  await tab.page.waitForFunction(() => globalThis.shardcast.call?.state === 'joined');
  return tab;
}

test('two tabs of the bare address are a call, until one leaves', { timeout: 120_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const ada = await joinByHand(context, 'Ada');
  const bob = await joinByHand(context, 'Bob');

  for (const [tab, other] of [[ada, 'Bob'], [bob, 'Ada']]) {
    await seesAndHears(tab, other);
    assert.equal(await tab.page.isVisible('#error'), false, await tab.page.textContent('#error'));
  }
  await ada.page.screenshot({ path: `${pictures}call.png` });

  await t.test('muting shows at the other', async () => {
    const silent = bob.page.locator('.tile.silent', { hasText: 'Ada' });
    await ada.page.click('#mic');
    await silent.waitFor();
    await ada.page.click('#mic');
    await silent.waitFor({ state: 'detached' });
  });

  await t.test('switching the camera off and on again', async () => {
    const dark = bob.page.locator('.tile.dark', { hasText: 'Ada' });
    await ada.page.click('#camera');
    await dark.waitFor();
    await ada.page.click('#camera');
    await dark.waitFor({ state: 'detached' });
    await seesAndHears(bob, 'Ada');
  });

  await t.test('a shared screen is a tile of its own', async () => {
    await ada.page.click('#screen');
    const screen = bob.page.locator('.tile.screen:not(.dark)', { hasText: 'Ada: screen' });
    await screen.waitFor();
    await until('the screen has a picture', () => screen.locator('video').evaluate((video) => video.videoWidth > 0));
    assert.equal(await bob.page.locator('.tile').count(), 3);
    await bob.page.screenshot({ path: `${pictures}screen.png` });
    await ada.page.click('#screen');
    await screen.waitFor({ state: 'detached' });
  });

  await t.test('leaving', async () => {
    await ada.page.click('#leave');
    await bob.page.locator('.tile', { hasText: 'Ada' }).waitFor({ state: 'detached' });
    assert.equal(await ada.page.isVisible('#lobby'), true);
    assert.equal(await bob.page.locator('.tile').count(), 1);
  });
  for (const { errors } of [ada, bob]) assert.deepEqual(errors, []);
});

test('a phone shows the call without scrolling sideways', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({
    permissions: ['camera', 'microphone'],
    viewport: { width: 360, height: 740 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
  });
  t.after(() => context.close());
  const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

  const tab = await openTab(context, server, { room: 'phone' });
  assert.ok(await fits(tab.page), 'the form fits');
  await tab.page.screenshot({ path: `${pictures}phone-form.png` });

  await tab.page.fill('#name', 'A rather long name for so small a place');
  await tab.page.tap('#lobby button[type=submit]');
  await tab.page.locator('.tile.own:not(.dark)').waitFor();
  assert.ok(await fits(tab.page), 'the call fits');
  await tab.page.screenshot({ path: `${pictures}phone-call.png` });
});

test('a room that the server closes brings everyone back to the form', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const tab = await openTab(context, server, { room: 'short', join: '1' });
  await until('joined', async () => (await server.roomTruth('short')).peers.length === 1);
  assert.equal((await server.rest('DELETE', '/api/rooms/short')).status, 204);
  await tab.page.locator('#state', { hasText: 'the room was closed' }).waitFor();
  assert.equal(await tab.page.isVisible('#lobby'), true);
});

// A camera that is switched on between our join and our readiness to receive must not be missed.
test('a producer that begins while another joins is received', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const quiet = { room: 'early', join: '1', audio: '0', video: '0', width: '320', height: '240' };
  const ada = await openTab(context, server, { ...quiet, peer: 'ada' });
  await until('Ada is here', async () => (await server.roomTruth('early')).peers.length === 1);

  const held = await holdCapabilities(context);
  const bob = await openTab(context, server, { ...quiet, peer: 'bob' });
  await until('Bob waits for the capabilities', () => held.release);
  await ada.page.click('#camera');
  await until('Bob is told of the camera', () => held.notified.includes('newProducer'));
  held.release();

  await receivedWhen("Ada's camera arrives", bob, ([camera]) => camera?.framesDecoded > 0);
});

test('a broken signaling connection is mended, and the call goes on', { timeout: 90_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const small = { room: 'mended', join: '1', width: '320', height: '240' };
  const ada = await openTab(context, server, { ...small, name: 'Ada' });
  const cut = [];
  await context.routeWebSocket(/\/ws\?/, (page) => {
    const upstream = page.connectToServer();
    cut.push(async () => {
      await upstream.close();
      await page.close({ code: 4001 });
    });
  });
  const bob = await openTab(context, server, { ...small, name: 'Bob' });
  await seesAndHears(ada, 'Bob');

  await cut[0]();
  await until('Bob connects again', () => cut.length === 2);
  await seesAndHears(bob, 'Ada');
  await seesAndHears(ada, 'Bob');
  assert.equal((await server.roomTruth('mended')).peers.length, 2);
});

// Keeps the answer to `getRouterRtpCapabilities` from the pages that open next, until `release` is called.
async function holdCapabilities(context) {
  const held = { release: null, notified: [] };
  await context.routeWebSocket(/\/ws\?/, (page) => {
    const upstream = page.connectToServer();
    let wanted = null;
    page.onMessage((text) => {
      const { id, method } = JSON.parse(text);
      if (method === 'getRouterRtpCapabilities') wanted = id;
      upstream.send(text);
    });
    upstream.onMessage((text) => {
      const { response, id, notification, method } = JSON.parse(text);
      if (notification) held.notified.push(method);
      if (response && id === wanted) held.release = () => page.send(text);
      else page.send(text);
    });
  });
  return held;
}

async function seesAndHears(tab, other) {
  const tile = tab.page.locator('.tile:not(.own):not(.screen)', { hasText: other });
  await tile.waitFor();
  await until(`${other}'s picture moves`, () => tile.locator('video').evaluate((video) =>
    video.videoWidth > 0 && !video.paused && video.currentTime > 0));
  const before = await receivedWhen(`${other}'s audio and video are consumed`, tab, (stats) => stats.length === 2);
  await receivedWhen(`frames and sound of ${other} grow`, tab, (stats) => stats.every((line) => {
    const old = before.find(({ id }) => id === line.id);
    return old && hasGrown(line, old);
  }));
  // The made-up microphone beeps once a second, which the tile marks as speaking.
  await tab.page.locator('.tile.speaking:not(.own)', { hasText: other }).waitFor();
}
