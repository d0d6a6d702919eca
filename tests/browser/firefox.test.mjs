// Firefox ESR in a call of two tabs, VP8 both ways.
//
// Firefox refuses loopback candidates but gives cameras only to secure pages, of which `http://localhost`
// is one. So the server and Firefox live in a network namespace of their own, with `lo` up and one more
// address to announce. `unshare` makes it, and it is gone with the last process in it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ADDRESS = '10.77.0.1';
const inside = fileURLToPath(new URL('lib/firefox-call.mjs', import.meta.url));

// A veth pair, since not every kernel has the dummy device; only its near end is used. Firefox looks
// for its own address along the default route.
const NETWORK = `
set -e
ip link set lo up
ip link add media0 type veth peer name media1
ip address add ${ADDRESS}/24 dev media0
ip link set media0 up
ip link set media1 up
ip route add default dev media0
exec "$@"
`;

test('two tabs of Firefox ESR call each other', { timeout: 180_000 }, async (t) => {
  // Someone who is not root gets a user namespace with it, in which he is.
  const asRoot = process.getuid() === 0 ? [] : ['--map-root-user'];
  const child = spawn(
    'unshare',
    ['--net', ...asRoot, 'sh', '-c', NETWORK, 'sh', process.execPath, inside, ADDRESS],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  t.after(() => child.kill());
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => { output += text; });
  }
  const [code] = await once(child, 'close');
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(code, 0, output);
});
