// The committed page is the one that the sources make.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { buildPage, distFile } from '../../tools/demo/build.mjs';

test('tools/demo/dist/index.html is up to date', async () => {
  const [built, committed] = await Promise.all([buildPage(), readFile(distFile, 'utf8')]);
  assert.ok(built === committed, 'stale: run `npm run build` in tools/demo and commit dist/index.html');
});

test('the page is one small file that loads nothing else', async () => {
  const page = await readFile(distFile, 'utf8');
  assert.ok(Buffer.byteLength(page) < 700_000);
  const markup = page.replace(/<script[^]*<\/script>|<style>[^]*<\/style>|<!--[^]*-->/g, '');
  assert.doesNotMatch(markup, /\ssrc=|<link rel="stylesheet"/);
});
