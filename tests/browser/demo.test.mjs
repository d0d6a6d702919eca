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

// What the server says about speakers, layers and statistics is said by the test here: it looks at what the
// page makes of it.
test('the page shows who speaks', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const puppet = await ventriloquist(context);
  const ada = await openTab(context, server, { room: 'speaking', peer: 'ada', join: '1', video: '0' });
  await ada.page.waitForFunction(() => globalThis.shardcast.call?.state === 'joined');
  const speaking = ada.page.locator('.tile.speaking');

  puppet.notify('newPeer', { peerId: 'bob', appData: { displayName: 'Bob' } });
  puppet.notify('activeSpeakerChanged', { activeSpeakerId: 'bob' });
  await speaking.filter({ hasText: 'Bob' }).waitFor();
  puppet.notify('activeSpeakerChanged', { activeSpeakerId: 'ada' });
  await speaking.filter({ hasText: 'ada (you)' }).waitFor();
  assert.equal(await speaking.count(), 1, 'one at a time');
  puppet.notify('activeSpeakerChanged', { activeSpeakerId: null });
  await speaking.waitFor({ state: 'detached' });
  assert.deepEqual(ada.errors, []);
});

test('layers that nobody wants are stopped at the sender, and come back', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
  t.after(() => context.close());
  const puppet = await ventriloquist(context);
  const ada = await openTab(context, server, { room: 'layers', join: '1', audio: '0' });
  await ada.page.waitForFunction(() => globalThis.shardcast.producers.has('camera'));
  const look = () => ada.page.evaluate(async () => {
    const { id, rtpSender } = globalThis.shardcast.producers.get('camera');
    const reports = [...(await rtpSender.getStats()).values()];
    const frames = reports.filter(({ type }) => type === 'outbound-rtp').map(({ framesSent }) => framesSent ?? 0);
    const active = rtpSender.getParameters().encodings.map((encoding) => encoding.active);
    return { id, active, frames: frames.reduce((sum, sent) => sum + sent, 0) };
  });
  const { id: producerId } = await look();
  const becomes = (spatialLayer, expected) => {
    puppet.notify('producerLayersWanted', { producerId, spatialLayer });
    return until(`up to ${spatialLayer}`, async () => JSON.stringify((await look()).active) === JSON.stringify(expected));
  };

  await becomes(0, [true, false, false]);
  await becomes(null, [false, false, false]);
  // In quick succession: the last one counts.
  puppet.notify('producerLayersWanted', { producerId, spatialLayer: 2 });
  puppet.notify('producerLayersWanted', { producerId, spatialLayer: 0 });
  await becomes(1, [true, true, false]);
  const { frames } = await look();
  await until('it sends again', async () => (await look()).frames > frames + 5);
  assert.deepEqual(ada.errors, []);
});

test('statistics are shown on demand, on a phone too', { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext({
    permissions: ['camera', 'microphone'],
    viewport: { width: 360, height: 740 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
  });
  t.after(() => context.close());
  const small = { room: 'figures', join: '1', width: '320', height: '240' };
  const ada = await openTab(context, server, { ...small, name: 'Ada' });
  const puppet = await ventriloquist(context);
  const timestamp = 1_000_000;
  puppet.answers.getConsumerStats = [{
    type: 'outbound-rtp',
    timestamp,
    score: 9,
    currentLayers: { spatialLayer: 1, temporalLayer: 2 },
    events: [{ timestamp: timestamp - 4000, what: 'layersDown', why: 'bandwidthShort' }],
  }];
  puppet.answers.getProducerStats = [{ type: 'inbound-rtp', bitrate: 300_000, score: 10 }];
  const bob = await openTab(context, server, { ...small, name: 'Bob' });
  await seesAndHears(bob, 'Ada');
  assert.equal(await bob.page.locator('.panel').count(), 0, 'only on demand');

  const tile = bob.page.locator('.tile:not(.own)', { hasText: 'Ada' });
  const own = bob.page.locator('.tile.own');
  for (const shown of [tile, own]) await shown.getByRole('button', { name: 'Statistics' }).tap();
  const shows = (where, plot, expected) => until(`${plot} ${expected}`, async () =>
    expected.test(await where.locator('.plot', { hasText: plot }).locator('b').textContent()));
  await shows(tile, 'Bitrate', /^[1-9][\d.]* [kM]bit\/s$/);
  await shows(tile, 'Loss', /^\d+\.\d %$/);
  await shows(tile, 'Jitter', /^\d+ ms$/);
  await shows(tile, 'Frames/s', /^[1-9]\d*$/);
  await shows(tile, 'Layers', /^S1 T2$/);
  await shows(tile, 'Score', /^9$/);
  await tile.getByText('4 s ago: layers down (bandwidth short)').waitFor();
  await shows(own, 'Bitrate', /^[1-9][\d.]* [kM]bit\/s$/);
  await shows(own, 'Score', /^10$/);
  assert.ok(await bob.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'it fits');
  await bob.page.screenshot({ path: `${pictures}phone-statistics.png`, fullPage: true });

  await tile.getByRole('button', { name: 'Statistics' }).tap();
  assert.equal(await bob.page.locator('.panel').count(), 1);
  for (const { errors } of [ada, bob]) assert.deepEqual(errors, []);
});

// Speaks for the server in the pages that open next: `notify` says something, and the requests named in
// `answers` are answered from there.
async function ventriloquist(context) {
  const puppet = { answers: {}, notify: null };
  await context.routeWebSocket(/\/ws\?/, (page) => {
    const upstream = page.connectToServer();
    page.onMessage((text) => {
      const { id, method } = JSON.parse(text);
      const data = puppet.answers[method];
      if (data) page.send(JSON.stringify({ response: true, id, ok: true, data }));
      else upstream.send(text);
    });
    upstream.onMessage((text) => page.send(text));
    puppet.notify = (method, data) => page.send(JSON.stringify({ notification: true, method, data }));
  });
  return puppet;
}

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
}
