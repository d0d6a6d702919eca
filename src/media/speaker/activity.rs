//! How active one member was, over 20 ms, 100 ms and 1 s, and how two members compare.

use crate::media::speaker::{SILENT, SUMMARY_SLOTS, Summary};

/// Slots of the last 600 ms in which a challenger must have been heard: more than a cough and its echo,
/// and noise has been found out before.
pub const EVIDENCE_SLOTS: u8 = 17;

/// Spread over this many blocks of 100 ms, which is longer than a cough too, fewer slots
/// will do.
pub const EVIDENCE_BLOCKS: usize = 5;

/// How many then: more than the clicks of somebody who types.
pub const SPREAD_EVIDENCE_SLOTS: u8 = 12;

/// Blocks that are looked at for evidence: a pause between words is allowed.
const RECENT_BLOCKS: usize = 6;

/// The paper's sub-bands of loudness (N1), and their width in dB.
const N1: usize = 13;
const SUB_BAND: u8 = 10;

/// Slots per block (N2) and blocks in the long span (N3).
const N2: usize = SUMMARY_SLOTS;
const N3: usize = 10;

/// By how much (natural logarithm) a challenger's scores must exceed the dominant speaker's; over the
/// long span to be equal is enough, so that a turn is seen before the last one has left the window.
const C1: f64 = 3.0;
const C2: f64 = 2.0;
const C3: f64 = 0.0;

/// Parameters of the exponential distributions of inactive speakers' counts.
const LAMBDA1: f64 = 0.78;
const LAMBDA2: f64 = 24.0;
const LAMBDA3: f64 = 47.0;

/// Scores do not fall below this.
const LOWEST_SCORE: f64 = 1e-10;

/// A slot is active from -60 dBov on; quieter sound is no speech even where there is no noise.
const ACTIVE_LEVEL: u8 = 60;

/// Neither is a slot that is so much quieter than the loudest of the last second: it is the echo.
const ECHO: u8 = 28;

/// A block is sound, not a click, if so many of its slots are.
const ACTIVE_SLOTS: u8 = 3;

/// The last second of one member, in blocks of 100 ms, newest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Activity {
    blocks: [Block; N3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Loudest slot; 127 minus its level.
    volume: u8,
    active: u8,
}

/// Logarithms of the scores for each possible count.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    immediate: [f64; N1 + 1],
    medium: [f64; N2 + 1],
    long: [f64; N3 + 1],
}

impl Activity {
    pub(super) fn push(&mut self, summary: &Summary) {
        // What came before was noise too.
        if summary.noise {
            self.blocks = [Block::default(); N3];
        }
        let loudest = summary.levels.into_iter().min().unwrap_or(SILENT).min(SILENT);
        self.push_block(Block { volume: SILENT - loudest, active: 0 });
        let loudest = self.blocks.iter().map(|block| block.volume).max().unwrap_or(0);
        let quietest = (SILENT - loudest + ECHO).min(ACTIVE_LEVEL);
        let active = summary.levels.iter().filter(|&&level| level <= quietest).count();
        self.blocks[0].active = active as u8;
    }

    /// `count` blocks without a summary.
    pub(super) fn push_silence(&mut self, count: u64) {
        for _ in 0..count.min(N3 as u64) {
            self.push_block(Block::default());
        }
    }

    /// Loudest slot of the newest block; 127 minus its level.
    pub(super) fn volume(&self) -> u8 {
        self.blocks[0].volume
    }

    /// Whether the newest block is active.
    pub(super) fn is_active(&self) -> bool {
        self.blocks[0].active >= ACTIVE_SLOTS
    }

    /// Whether there has been enough sound for speech.
    pub(super) fn has_evidence(&self) -> bool {
        let recent = self.blocks[..RECENT_BLOCKS].iter().map(|block| block.active);
        let blocks = recent.clone().filter(|&active| active > 0).count();
        let slots: u8 = recent.sum();
        slots >= EVIDENCE_SLOTS || (blocks >= EVIDENCE_BLOCKS && slots >= SPREAD_EVIDENCE_SLOTS)
    }

    /// The livelier of the two newest blocks: nobody loses the floor to the pause between two words.
    fn liveliest(&self) -> Block {
        let [newest, before, ..] = self.blocks;
        if before.active > newest.active { before } else { newest }
    }

    /// Activity over the last second, the newer half weighing seven times as much: 0 to N3.
    pub(super) fn long(&self) -> usize {
        let (newer, older) = self.blocks.split_at(N3 / 2);
        let count = |half: &[Block]| half.iter().map(|b| usize::from(b.active)).sum::<usize>();
        (7 * count(newer) + count(older)) / (4 * N2)
    }

    fn push_block(&mut self, block: Block) {
        self.blocks.copy_within(..N3 - 1, 1);
        self.blocks[0] = block;
    }
}

impl Scores {
    pub(super) fn new() -> Self {
        Self {
            immediate: std::array::from_fn(|count| log_score(count, N1, LAMBDA1)),
            medium: std::array::from_fn(|count| log_score(count, N2, LAMBDA2)),
            long: std::array::from_fn(|count| log_score(count, N3, LAMBDA3)),
        }
    }

    /// Whether `challenger` beats `dominant` over all three spans.
    pub(super) fn beats(&self, challenger: &Activity, dominant: &Activity) -> bool {
        let (lively, quiet) = (challenger.liveliest(), dominant.blocks[0]);
        let immediate = |block: Block| self.immediate[usize::from(block.volume / SUB_BAND)];
        let medium = |block: Block| self.medium[usize::from(block.active)];
        let long = |activity: &Activity| self.long[activity.long()];
        immediate(lively) - immediate(quiet) > C1
            && medium(lively) - medium(quiet) > C2
            && long(challenger) - long(dominant) >= C3
    }
}

/// Logarithm of the paper's activity score: how much likelier `count` active parts of `n` are of someone
/// who speaks (binomial, one half) than of someone who does not (exponential, `lambda`).
fn log_score(count: usize, n: usize, lambda: f64) -> f64 {
    let choices: f64 = (1..=count).map(|i| ((n + 1 - i) as f64 / i as f64).ln()).sum();
    let speaking = choices - n as f64 * std::f64::consts::LN_2;
    let score = speaking - lambda.ln() + lambda * count as f64;
    score.max(LOWEST_SCORE).ln()
}
