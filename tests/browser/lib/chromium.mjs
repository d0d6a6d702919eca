// Chromium as Debian ships it, with a made-up camera and microphone, and the demo page in it.

import { chromium } from 'playwright-core';
import { until } from './until.mjs';

/** One browser process with a profile of its own; close it when done. `more` are further arguments. */
export function launchChromium(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    headless: true,
    chromiumSandbox: false,
    args: [
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
      ...more,
    ],
  });
}

/**
 * Opens the demo page in a context of its own. `query` are the page's parameters. The result has the
 * page, every signaling message that it received, and what went wrong in it.
 */
export async function openDemo(browser, server, query, contextOptions = {}) {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'], ...contextOptions });
  return openTab(context, server, query);
}

/** The same in a context that is already there: a second tab. */
export async function openTab(context, server, query) {
  const page = await context.newPage();
  const tab = { page, context, notifications: [], errors: [] };
  page.on('pageerror', (error) => tab.errors.push(String(error)));
  page.on('websocket', (socket) => {
    socket.on('framereceived', ({ payload }) => {
      const message = JSON.parse(payload);
      if (message.notification) tab.notifications.push(message);
    });
  });
  // Not until "load": a page that joins at once has video elements by then, and they hold that event
  // back until media arrives.
  await page.goto(`${server.url}/?${new URLSearchParams(query)}`, { waitUntil: 'domcontentloaded' });
  return tab;
}

/** The page's figures on what it receives: see tools/demo/src/stats.js. */
export function received(tab) {
  return tab.page.evaluate(() => globalThis.shardcast.stats());
}

/**
 * The same, once `enough` is content with it; a failure tells what arrived, and what the page says. `patience` is
 * as for `until`.
 */
export async function receivedWhen(what, tab, enough, patience) {
  let last;
  try {
    return await until(what, async () => {
      last = await received(tab);
      return enough(last) && last;
    }, patience);
  } catch (error) {
    const page = await tab.page.evaluate(() => document.body.innerText);
    throw new Error(`${what}: in vain\n${JSON.stringify(last, null, 1)}\nthe page says: ${page}`, { cause: error });
  }
}

/** Whether a consumer got on since an earlier look: frames for video, sound energy for audio. */
export function hasGrown(now, before) {
  if (now.kind === 'audio') return now.totalAudioEnergy > before.totalAudioEnergy;
  return now.framesDecoded >= before.framesDecoded + 10;
}
