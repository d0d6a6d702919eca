// Waiting for a condition instead of for a time.

import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Calls `check` until it gives something truthy, and returns that. `what` says in the failure what
 * was waited for; an exception in `check` counts as "not yet". Times are milliseconds.
 */
export async function until(what, check, { timeout = 30_000, interval = 150 } = {}) {
  const deadline = Date.now() + timeout;
  let last;
  do {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await sleep(interval);
  } while (Date.now() < deadline);
  const seen = last instanceof Error ? last.stack : JSON.stringify(last);
  throw new Error(`not within ${timeout} ms: ${what} (last seen: ${seen})`);
}
