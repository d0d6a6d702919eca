// Prints how calls over bad lines fare: no judgement, just figures. Run it with
//   node tests/browser/figures.mjs [loss] [audio] [drop] [constant] [switches]
// after `cargo build --workspace`.

import { launchChromium } from './lib/chromium.mjs';
import { constantLine, decodedShare, droppingLine, launchBusyChromium, LOSSLESS, lossyCall } from './lib/scenarios.mjs';
import { startServer } from './lib/server.mjs';
import { LAYERED, switchingCall } from './lib/switches.mjs';

const wanted = process.argv.slice(2);
const wants = (name) => wanted.length === 0 || wanted.includes(name);
const percent = (share) => `${(share * 100).toFixed(2)} %`;
const kbit = (rate) => Math.round(rate / 1000);
const short = (heights) => heights.map(([at, height]) => `${height}@${at.toFixed(1)}s`).join(' ');

const browser = await launchBusyChromium();
const server = await startServer({ WORKERS: '1' });
try {
  if (wants('loss')) await losses([LOSSLESS, '2%', '10%']);
  if (wants('audio')) await audio('5%');
  if (wants('drop')) await drop();
  if (wants('constant')) await constant();
  if (wants('switches')) await switches();
} finally {
  await browser.close();
  await server.stop();
}

async function losses(shares) {
  const rows = [];
  let lossless;
  for (const loss of shares) {
    const figures = await lossyCall(browser, server, { loss });
    lossless ??= figures;
    for (const way of ['down', 'up']) {
      const { video, audio } = figures[way];
      rows.push({
        'loss each way': loss,
        receiver: way === 'down' ? 'behind the line' : 'publisher behind it',
        'frames sent': video.framesSent,
        decoded: video.framesDecoded,
        'of lossless': percent(decodedShare(figures[way], lossless[way])),
        'lost': video.packetsLost,
        'resent': video.retransmitted,
        'residual loss': percent(video.residualLoss),
        'freezes': `${video.freezes} (${video.frozen.toFixed(1)} s)`,
        'key frames': video.keyFrames,
        'kbit/s': kbit(video.bitrate),
        'audio concealed': percent(audio.concealed),
      });
    }
  }
  console.log('\nTwo in a call, VP8 640x480, one behind a line of 60 ms round trip');
  console.table(rows);
}

async function audio(loss) {
  const figures = await lossyCall(browser, server, { loss, video: false });
  console.log(`\nAudio alone at ${loss} each way`);
  console.table(['down', 'up'].map((way) => ({
    receiver: way === 'down' ? 'behind the line' : 'publisher behind it',
    received: figures[way].audio.packetsReceived,
    lost: figures[way].audio.packetsLost,
    concealed: percent(figures[way].audio.concealed),
    'with silence': percent(figures[way].audio.concealedWithSilence),
  })));
}

async function drop() {
  const { sent, fitsAfter, during, after, topAfter, good, estimates } = await droppingLine(browser, server);
  console.log('\nThe line falls from 5 Mbit/s to 500 kbit/s, and rises again');
  printSent(sent);
  console.table({
    'traffic fits after (s)': fitsAfter ?? 'never',
    'longest standstill while poor (s)': during.standstill,
    'freezes while poor': `${during.freezes} (${during.frozen.toFixed(1)} s)`,
    'heights while poor': short(during.heights),
    'top layer after the rise (s)': topAfter ?? 'never',
    'heights after': short(after.heights),
    'the good one: lost, freezes, heights': `${good.packetsLost}, ${good.freezes}, ${short(good.heights)}`,
    'estimate (kbit/s)': estimates.filter((_, index) => index % 10 === 0).map(([, rate]) => kbit(rate)).join(' ') || 'none',
  });
}

async function constant() {
  const { sent, poor, audio, good, estimates, queueDelay, offered, droppedPackets } = await constantLine(browser, server);
  const rates = estimates.map(([, rate]) => kbit(rate)).sort((a, b) => a - b);
  console.log('\nA line of 1 Mbit/s');
  printSent(sent);
  console.table({
    'estimate (kbit/s), least to most': rates.length ? `${rates[0]} to ${rates.at(-1)}` : 'none',
    'sent into the line (kbit/s)': kbit(offered),
    'queue delay p50/p95/max (ms)': `${queueDelay.p50} / ${queueDelay.p95} / ${queueDelay.max}`,
    'dropped by the queue (packets)': droppedPackets,
    'heights': short(poor.heights),
    'frames per second': (poor.framesDecoded / poor.seconds).toFixed(1),
    'freezes': `${poor.freezes} (${poor.frozen.toFixed(1)} s)`,
    'audio concealed': percent(audio.concealed),
    'the good one: lost, freezes, heights': `${good.packetsLost}, ${good.freezes}, ${short(good.heights)}`,
  });
}

async function switches() {
  // Chromium's made-up picture: of a busier one, its VP9 encoder leaves out layer frames without a word.
  const calm = await launchChromium();
  try {
    await switchLayers(calm);
  } finally {
    await calm.close();
  }
}

async function switchLayers(calm) {
  const rows = [];
  for (const codec of Object.keys(LAYERED)) {
    const { layered, heights, switches: all, ...seen } = await switchingCall(calm, server, { codec, count: 30 });
    const took = all.flatMap((one) => one.took ?? []).sort((a, b) => a - b);
    const changes = all.map((one) => one.changes);
    rows.push({
      codec: `${codec} ${layered}`,
      heights: heights.join(' '),
      'wishes, fulfilled': `${all.length}, ${took.length}`,
      'took (ms) p50/max': `${took[Math.floor(took.length / 2)]} / ${took.at(-1)}`,
      switches: changes.reduce((sum, count) => sum + count, 0),
      'most key frames asked per switch': Math.max(...all.map((one) => one.asked / Math.max(1, one.changes))),
      "receiver's PLIs": seen.receiversKeyFrameRequests,
      decoded: seen.framesDecoded,
      dropped: seen.framesDropped,
      freezes: `${seen.freezes} (${seen.frozen.toFixed(1)} s)`,
      'longest standstill (s)': seen.longestStandstill,
    });
  }
  console.log('\nLayers switched every 2 s for a minute');
  console.table(rows);
}

function printSent(sent) {
  console.log(sent.map(({ rid, height, bitrate }) => `  encoding ${rid}: height ${height}, ${kbit(bitrate)} kbit/s`).join('\n'));
}
