// Packs src/ into the one file that the server's binary embeds. `npm run build` writes it;
// a test builds it again and compares.

import { build } from 'esbuild';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
export const distFile = `${here}dist/index.html`;

/** The whole page as one string: the same input gives the same bytes on every machine. */
export async function buildPage() {
  const [html, script, style] = await Promise.all([
    readFile(`${here}src/index.html`, 'utf8'),
    bundle('src/main.js'),
    bundle('src/style.css'),
  ]);
  // Functions, since a `$&` in the script would mean something to `replace`.
  return html
    .replace('<!-- style -->', () => `<style>${style.text.trim()}</style>`)
    .replace('<!-- script -->', () => `<script type="module">${escaped(script.text.trim())}</script>`)
    .concat(await notices(script.inputs));
}

async function bundle(entry) {
  const result = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: ['chrome120', 'firefox121', 'safari17.4'],
    charset: 'utf8',
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  });
  return { text: result.outputFiles[0].text, inputs: Object.keys(result.metafile.inputs) };
}

// The bundled libraries' licences (MIT, ISC) want their notices to travel along.
async function notices(inputs) {
  const folders = new Set(inputs.flatMap((path) => path.match(/^node_modules\/(@[^/]+\/)?[^/]+/)?.[0] ?? []));
  const texts = await Promise.all([...folders].sort().map(async (folder) => {
    const { name, version, license } = JSON.parse(await readFile(`${here}${folder}/package.json`, 'utf8'));
    const file = (await readdir(`${here}${folder}`)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(`${here}${folder}/${file}`, 'utf8') : '';
    return `${name} ${version} (${license})\n${text.replaceAll('\r', '').trim()}`;
  }));
  return `<!-- This page contains:\n\n${texts.join('\n\n').replaceAll('--', '—')}\n-->\n`;
}

// Inside an HTML script element these two sequences would end it or change how it is read.
function escaped(script) {
  return script.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const page = await buildPage();
  await mkdir(`${here}dist`, { recursive: true });
  await writeFile(distFile, page);
  console.log(`${distFile}: ${Buffer.byteLength(page)} bytes`);
}
