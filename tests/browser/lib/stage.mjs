// A server and a browser for the tests of one file.

import { after, before } from 'node:test';
import { launchChromium } from './chromium.mjs';
import { startServer } from './server.mjs';

/**
 * Starts both before the file's first test and ends them after its last. `env` are the server's settings beside those
 * of `startServer`, and `browserArguments` gives a promise of the browser's further ones.
 */
export function setStage(env = {}, browserArguments = async () => []) {
  const stage = { server: null, browser: null };
  before(async () => {
    stage.server = await startServer(env);
    stage.browser = await launchChromium(await browserArguments());
  });
  after(async () => {
    await stage.browser?.close();
    await stage.server?.stop();
  });
  return stage;
}
