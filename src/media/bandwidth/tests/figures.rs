//! What the estimator is good for, in figures. `cargo test --lib bandwidth::tests::figures -- --nocapture`
//! prints them.

use std::time::Duration;

use super::call::{self, LAYERS, Media, Outcome};
use super::line::Profile;

/// Every figure must hold for each of these.
const SEEDS: std::ops::Range<u64> = 0..10;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every change of the estimate, for looking into a failure.
fn history(outcome: &Outcome) -> String {
    let mut lines = String::new();
    let mut last = None;
    for sample in &outcome.samples {
        if last != Some((sample.estimate, sample.layer)) {
            let at = sample.at.as_secs_f64();
            let (estimate, reason) = (sample.estimate / 1000, sample.reason);
            lines += &format!("{at:7.2} s {estimate:6} kbit/s {reason:14} {:?}\n", sample.layer);
        }
        last = Some((sample.estimate, sample.layer));
    }
    lines
}

#[test]
fn a_constant_line_is_known_and_its_queue_stays_short() {
    for seed in SEEDS {
        let outcome = call::run(Profile::constant(1_000_000), Media::camera(), seconds(60), seed);
        let (least, most) = outcome.extremes(5.0, 60.0);
        let p95 = outcome.wait_p95(0.0);
        println!(
            "1 Mbit/s, seed {seed}: estimate {least} to {most} bit/s, queueing p95 {p95:?}, {} probes",
            outcome.probes
        );
        assert!(least >= 800_000 && most <= 980_000, "seed {seed}\n{}", history(&outcome));
        assert!(p95 < Duration::from_millis(80), "seed {seed}\n{}", history(&outcome));
        assert!(outcome.share_at_least(1, 5.0, 60.0) == 1.0, "seed {seed}\n{}", history(&outcome));
    }
}

#[test]
fn a_drop_is_followed_and_recovered_from() {
    for seed in SEEDS {
        let mut profile = Profile::constant(5_000_000);
        profile.rates.push((seconds(15), 500_000));
        profile.rates.push((seconds(40), 5_000_000));
        let outcome = call::run(profile, Media::camera(), seconds(60), seed);
        let top = LAYERS.len() - 1;
        let start = outcome.settles(0.0, |sample| sample.layer == Some(top));
        let fits = outcome.settles(15.0, |sample| sample.media <= 500_000);
        let back = outcome.settles(40.0, |sample| sample.layer == Some(top));
        println!(
            "5 to 0.5 Mbit/s, seed {seed}: top after {start:.2?}, fits after {fits:.2?}, back after {back:.2?} s"
        );
        assert!(start.is_some_and(|after| after < 3.0), "seed {seed}\n{}", history(&outcome));
        assert!(fits.is_some_and(|after| after < 2.0), "seed {seed}\n{}", history(&outcome));
        assert!(back.is_some_and(|after| after < 10.0), "seed {seed}\n{}", history(&outcome));
        assert!(
            outcome.between(17.0, 40.0).all(|sample| sample.media <= 500_000),
            "seed {seed}\n{}",
            history(&outcome)
        );
    }
}

/// Many streams together leave hardly any of the estimate unused.
#[test]
fn media_that_fills_the_estimate_does_not_lengthen_the_queue() {
    for seed in SEEDS {
        let outcome = call::run(Profile::constant(1_000_000), Media::crowd(), seconds(60), seed);
        let (least, most) = outcome.extremes(5.0, 60.0);
        let p95 = outcome.wait_p95(0.0);
        println!(
            "1 Mbit/s filled, seed {seed}: estimate {least} to {most} bit/s, queueing p95 {p95:?}"
        );
        assert!(least >= 800_000 && most <= 980_000, "seed {seed}\n{}", history(&outcome));
        assert!(p95 < Duration::from_millis(80), "seed {seed}\n{}", history(&outcome));
    }
}

/// 60 ms of round trip and `loss` at random each way.
fn lossy(loss: f64, seed: u64) -> Outcome {
    let mut profile = Profile::constant(5_000_000);
    (profile.loss, profile.delay) = (loss, Duration::from_millis(30));
    call::run(profile, Media::camera(), seconds(60), seed)
}

#[test]
fn two_percent_of_loss_cost_no_layer() {
    for seed in SEEDS {
        let outcome = lossy(0.02, seed);
        let share = outcome.share_at_least(LAYERS.len() - 1, 5.0, 60.0);
        println!("2 % loss, seed {seed}: top layer {:.1} % of the time", share * 100.0);
        assert!(share == 1.0, "seed {seed}\n{}", history(&outcome));
    }
}

#[test]
fn ten_percent_of_loss_leave_the_middle_layer() {
    for seed in SEEDS {
        let outcome = lossy(0.10, seed);
        let middle = outcome.share_at_least(1, 5.0, 60.0);
        let top = outcome.share_at_least(LAYERS.len() - 1, 5.0, 60.0);
        println!(
            "10 % loss, seed {seed}: middle layer or better {:.1} %, top {:.1} % of the time",
            middle * 100.0,
            top * 100.0
        );
        assert!(middle == 1.0, "seed {seed}\n{}", history(&outcome));
    }
}
