//! What a receiver gets over a narrow line, and how the server finds out what the line carries.

use std::time::{Duration, Instant};

use shardcast::id::{ConsumerId, Ssrc};
use shardcast::media::bandwidth::Limits;
use shardcast::room::spec::{
    Command, ConsumerStats, Event, StatsOf, StatsReport, TransportStats, What, Why,
};

use crate::media::Source;
use crate::network::{Line, Weather};
use crate::world::World;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const QUEUE: Duration = Duration::from_millis(300);

/// A camera in three sizes: 160, 500 and 2,400 kbit/s.
fn camera(world: &World, tag: u32) -> Vec<Source> {
    [("r0", 1, 600), ("r1", 2, 950), ("r2", 9, 1100)]
        .into_iter()
        .enumerate()
        .map(|(index, (rid, packets_per_frame, payload_len))| {
            let ssrc = tag * 10 + index as u32;
            let mut source = Source::video(tag, ssrc, &tag.to_string(), Some(rid), world.now);
            (source.packets_per_frame, source.payload_len) = (packets_per_frame, payload_len);
            source
        })
        .collect()
}

struct Call {
    world: World,
    viewer: usize,
    consumer: ConsumerId,
    ssrc: Ssrc,
}

/// A publisher, and a viewer behind a line of `rate` bit/s and a round trip of 60 ms.
fn call(seed: u64, rate: u64) -> Call {
    let weather = Weather { delay: Duration::from_millis(30), ..Weather::CALM };
    let mut world = World::new(seed, 1, weather);
    let (publisher, viewer) = (world.join(0), world.join(0));
    world.network.lines.insert(viewer, Line::new(rate, QUEUE));
    let sources = camera(&world, 500);
    let video = world.publish(publisher, sources);
    world.run(seconds(1));
    let (consumer, ssrc) = world.consume(viewer, video);
    Call { world, viewer, consumer, ssrc }
}

impl Call {
    fn stats(&mut self) -> TransportStats {
        let of = StatsOf::Transport(self.world.peers[self.viewer].id);
        let StatsReport::Transport(stats) = self.ask(of) else { panic!("of a transport") };
        stats
    }

    fn consumer_stats(&mut self) -> ConsumerStats {
        let StatsReport::Consumer(stats) = self.ask(StatsOf::Consumer(self.consumer)) else {
            panic!("of a consumer")
        };
        stats
    }

    fn ask(&mut self, of: StatsOf) -> StatsReport {
        self.world.command(0, Command::Stats { token: 7, of });
        let Some(Event::Stats { report: Some(report), .. }) = self.world.events.pop() else {
            panic!("the answer comes at once")
        };
        *report
    }

    /// How often something was done for a reason.
    fn count(&mut self, what: What, why: Why) -> u64 {
        let reasons = self.consumer_stats().reasons;
        let reason = reasons.iter().find(|reason| (reason.what, reason.why) == (what, why));
        reason.map_or(0, |reason| reason.count)
    }

    /// Spatial layer that was told last.
    fn layer(&self) -> Option<u8> {
        self.world.events.iter().rev().find_map(|event| match event {
            Event::LayersChanged { id, layers } if *id == self.consumer => {
                Some(layers.map(|(spatial, _)| spatial))
            }
            _ => None,
        })?
    }

    /// Runs until `layer` is reached; how long that took, or `None` if it was not within `limit`.
    fn time_to(&mut self, layer: impl Fn(u8) -> bool, limit: Duration) -> Option<Duration> {
        let begun = self.world.now;
        while self.world.now - begun < limit {
            if self.layer().is_some_and(&layer) {
                return Some(self.world.now - begun);
            }
            self.world.run(Duration::from_millis(20));
        }
        None
    }

    /// The longest time without a packet between two moments.
    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let arrivals = &self.world.peers[self.viewer].sinks[&self.ssrc].arrivals;
        let times = arrivals.iter().map(|(at, _)| *at).filter(|at| (from..to).contains(at));
        let times: Vec<Instant> = [from].into_iter().chain(times).chain([to]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// 95 % of what was sent waited no longer in front of the line.
fn queueing(delays: &[Duration]) -> Duration {
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    delays[delays.len() * 95 / 100]
}

#[test]
fn a_constant_line_is_estimated_and_filled_with_what_fits() {
    let mut call = call(41, 1_000_000);
    call.world.run(seconds(10));
    let delays_before = call.world.network.delays[&call.viewer].len();
    let mut shares = Vec::new();
    for _ in 0..600 {
        call.world.run(Duration::from_millis(100));
        let estimate = call.stats().available_outgoing_bitrate.expect("feedback has come");
        shares.push(estimate as f64 / 1e6);
    }
    let delays = &call.world.network.delays[&call.viewer][delays_before..];
    let queueing = queueing(delays).as_secs_f64() * 1e3;
    let (low, high) = (percentile(&mut shares, 0), percentile(&mut shares, 100));
    println!("1 Mbit/s line for a minute: estimate {low:.3} to {high:.3} of it");
    println!("queueing delay p95 {queueing:.1} ms, layer {:?}", call.layer());
    assert!(low >= 0.80 && high <= 0.98, "estimate between {low} and {high} of the line");
    assert!(queueing < 80.0, "queueing delay p95 {queueing} ms");
    assert_eq!(call.layer(), Some(1), "the best layer that fits");
    call.world.check_sinks();
}

#[test]
fn a_line_that_narrows_gets_less_soon_and_more_again() {
    let mut call = call(42, 5_000_000);
    let up = call.time_to(|layer| layer == 2, seconds(15)).expect("the top layer fits");
    println!("5 Mbit/s line: top layer {:.2} s after joining", up.as_secs_f64());
    call.world.run(seconds(20));
    assert_eq!(call.layer(), Some(2), "it stays there");

    let dropped_at = call.world.now;
    call.world.network.lines.insert(call.viewer, Line::new(500_000, QUEUE));
    let down = call.time_to(|layer| layer == 0, seconds(2)).expect("a fitting layer within 2 s");
    call.world.run(seconds(30));
    let gap = call.longest_gap(dropped_at, call.world.now);
    println!("down to 500 kbit/s: fits after {:.2} s, longest gap {gap:?}", down.as_secs_f64());
    assert!(gap < seconds(1), "no freeze above 1 s: {gap:?}");
    assert!(call.layer() <= Some(1));

    call.world.network.lines.insert(call.viewer, Line::new(5_000_000, QUEUE));
    let back = call.time_to(|layer| layer == 2, seconds(10)).expect("the top layer within 10 s");
    println!("up to 5 Mbit/s again: top layer after {:.2} s", back.as_secs_f64());
    call.world.run(seconds(20));
    assert_eq!(call.layer(), Some(2));
    call.world.check_sinks();
}

#[test]
fn statistics_say_why_layers_changed() {
    let mut call = call(45, 5_000_000);
    call.time_to(|layer| layer == 2, seconds(15)).expect("the top layer fits");
    assert_eq!(call.count(What::Resume, Why::Start), 1);
    assert_eq!(call.count(What::KeyFrameRequest, Why::Start), 1);
    assert!(call.count(What::LayersUp, Why::BandwidthThere) > 0);
    assert_eq!(call.count(What::LayersDown, Why::BandwidthShort), 0);

    call.world.network.lines.insert(call.viewer, Line::new(500_000, QUEUE));
    call.time_to(|layer| layer == 0, seconds(5)).expect("less fits");
    assert!(call.count(What::LayersDown, Why::BandwidthShort) > 0);

    call.world.network.lines.insert(call.viewer, Line::new(50_000_000, QUEUE));
    call.time_to(|layer| layer == 2, seconds(20)).expect("everything fits");
    let id = call.consumer;
    call.world.command(0, Command::SetPreferredLayers { id, spatial: 1, temporal: None });
    call.time_to(|layer| layer == 1, seconds(1)).expect("as wished");
    assert_eq!(call.count(What::LayersDown, Why::Client), 1);

    let publisher = 0;
    call.world.peers[publisher].sources[1].active = false;
    call.time_to(|layer| layer == 0, seconds(3)).expect("what is left");
    assert_eq!(call.count(What::LayersDown, Why::LayerSilent), 1);

    call.world.command(0, Command::SetConsumerPaused { id, paused: true });
    assert_eq!(call.count(What::Pause, Why::Client), 1);
    let stats = call.consumer_stats();
    assert!(stats.events.len() > 5 && stats.events.is_sorted_by(|a, b| a.age >= b.age));
    let by_layer = stats.inbound.expect("it is sent something").bitrate_by_layer;
    let [(0, 0, rate)] = by_layer[..] else { panic!("one layer: {by_layer:?}") };
    assert!((140_000..200_000).contains(&rate), "{rate} bit/s");
}

/// Two cameras over one line that carries one of them well: the more important one gets more.
#[test]
fn priority_decides_who_gets_more() {
    let mut call = call(43, 1_300_000);
    let publisher = call.world.join(0);
    let sources = camera(&call.world, 600);
    let video = call.world.publish(publisher, sources);
    call.world.run(seconds(1));
    let (other, _) = call.world.consume(call.viewer, video);
    call.world.command(0, Command::SetPriority { id: other, priority: 200 });
    call.world.run(seconds(20));
    let first = call.layer();
    call.consumer = other;
    let layers = (first, call.layer());
    println!("1.3 Mbit/s for two cameras: layers {layers:?}, the second one's priority is 200");
    assert!(layers.1 > layers.0 || layers == (Some(1), Some(1)), "{layers:?}");
    call.world.command(0, Command::SetPreferredLayers { id: other, spatial: 0, temporal: None });
    call.world.run(seconds(15));
    assert_eq!(call.layer(), Some(0), "no more than its client wants");
    call.world.check_sinks();
}

#[test]
fn who_knows_remb_only_is_told_and_heard_by_it() {
    let mut world = World::new(46, 1, Weather::CALM);
    world.remb_only = true;
    let (publisher, viewer) = (world.join(0), world.join(0));
    let sources = camera(&world, 500);
    let video = world.publish(publisher, sources);
    world.run(seconds(3));
    let allowed = world.peers[publisher].max_bitrate.expect("a REMB came");
    assert!(allowed > 1_000_000, "nothing is lost: {allowed} bit/s");
    let (consumer, ssrc) = world.consume(viewer, video);
    let mut call = Call { world, viewer, consumer, ssrc };
    call.world.run(seconds(2));
    assert_eq!(call.layer(), Some(2), "of its line nothing is known");
    for (bitrate, layer) in [(700_000, 1), (u64::MAX, 2), (0, 0)] {
        for _ in 0..30 {
            let message = call.world.peers[viewer].say_max_bitrate(bitrate);
            call.world.send(viewer, &message);
            call.world.run(Duration::from_millis(500));
        }
        let layers = call.layer();
        // With a line of nothing, nothing is sent.
        assert_eq!(layers, (bitrate > 0).then_some(layer), "at {bitrate} bit/s");
    }
}

/// Also where that is what was guessed of the line, so that the estimate does not change: a line is not new for ever.
#[test]
fn a_receiver_that_confirms_our_guess_is_believed() {
    let mut world = World::new(53, 1, Weather::CALM);
    world.remb_only = true;
    let (publisher, viewer) = (world.join(0), world.join(0));
    let mut source = Source::video(700, 7000, "1", None, world.now);
    // 2.5 Mbit/s.
    (source.packets_per_frame, source.payload_len) = (10, 1030);
    let video = world.publish(publisher, vec![source]);
    let (consumer, ssrc) = world.consume(viewer, video);
    let mut call = Call { world, viewer, consumer, ssrc };
    for _ in 0..10 {
        let message = call.world.peers[viewer].say_max_bitrate(Limits::default().initial);
        call.world.send(viewer, &message);
        call.world.run(Duration::from_millis(500));
    }
    assert_eq!(call.count(What::Pause, Why::BandwidthShort), 1);
}

/// A camera of one size cannot be sent smaller: it goes on while the line carries most of it.
#[test]
fn the_only_picture_is_not_given_up_lightly() {
    let weather = Weather { delay: Duration::from_millis(30), ..Weather::CALM };
    let mut world = World::new(47, 1, weather);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let source = camera(&world, 500).remove(1);
    let video = world.publish(publisher, vec![source]);
    let (consumer, ssrc) = world.consume(viewer, video);
    let mut call = Call { world, viewer, consumer, ssrc };
    call.world.run(seconds(5));
    call.world.network.lines.insert(viewer, Line::new(450_000, QUEUE));
    call.world.run(seconds(20));
    assert_eq!(call.count(What::Pause, Why::BandwidthShort), 0, "it takes some 510 kbit/s");
    call.world.network.lines.insert(viewer, Line::new(120_000, QUEUE));
    call.world.run(seconds(20));
    assert!(call.count(What::Pause, Why::BandwidthShort) > 0, "that is hopeless");
    call.world.network.lines.insert(viewer, Line::new(5_000_000, QUEUE));
    let back = call.time_to(|layer| layer == 0, seconds(15)).expect("it comes back");
    call.world.run(seconds(10));
    println!("the only picture is back {:.1} s after the line", back.as_secs_f64());
    assert_eq!(call.layer(), Some(0));
}

/// How a viewer's new line fared that four cameras of one size were sent over at once, as after the failure of a shard.
struct Newcomer {
    /// When each was there for good.
    there: Vec<Option<Duration>>,
    /// See [`queueing`].
    queueing: Duration,
    lost: u64,
}

fn newcomer(seed: u64, rate: u64) -> Newcomer {
    const CAMERAS: u32 = 4;
    const LENGTH: Duration = seconds(20);
    let weather = Weather { delay: Duration::from_millis(15), ..Weather::CALM };
    let mut world = World::new(seed, 1, weather);
    let viewer = world.join(0);
    world.network.lines.insert(viewer, Line::new(rate, QUEUE));
    let mut ssrcs = Vec::new();
    for camera in 1..=CAMERAS {
        let publisher = world.join(0);
        let mut source = Source::video(camera, 100 * camera, "1", None, world.now);
        // 2.5 Mbit/s.
        (source.packets_per_frame, source.payload_len) = (10, 1030);
        let video = world.publish(publisher, vec![source]);
        ssrcs.push(world.consume(viewer, video).1);
    }
    world.run(LENGTH);
    world.check_sinks();
    let there = ssrcs.iter().map(|ssrc| {
        let arrivals = &world.peers[viewer].sinks[ssrc].arrivals;
        let times: Vec<Instant> = arrivals.iter().map(|(at, _)| *at).chain([world.now]).collect();
        let is_gap = |pair: &&[Instant]| pair[1] - pair[0] > Duration::from_millis(300);
        let last = times.windows(2).rfind(is_gap);
        let since = last.map_or(times[0], |gap| gap[1]);
        (since < world.now).then(|| since - world.start)
    });
    let there = there.collect();
    Newcomer { there, queueing: queueing(&world.network.delays[&viewer]), lost: world.network.lost }
}

/// What a new line is taken for at first is a guess: who does not fit into it need not wait long.
#[test]
fn a_new_line_soon_carries_all_that_it_can() {
    for (rate, fit) in [(50_000_000, 4), (20_000_000, 4), (15_000_000, 4), (8_000_000, 2)] {
        for seed in 48..53 {
            let Newcomer { there, queueing, lost } = newcomer(seed, rate);
            println!(
                "{rate} bit/s, seed {seed}: there after {there:.2?}, queueing p95 {queueing:.1?}"
            );
            let soon = there.iter().flatten().filter(|after| **after < seconds(2));
            assert!(soon.count() >= fit, "{rate} bit/s, seed {seed}: {fit} of {there:?}");
            assert!(
                queueing < Duration::from_millis(80),
                "{rate} bit/s, seed {seed}: {queueing:?}"
            );
            assert_eq!(lost, 0, "{rate} bit/s, seed {seed}");
        }
    }
}

/// What is forgiven a new line must not rock one that really is narrow.
#[test]
fn a_narrow_line_calms_down_although_it_is_new() {
    for seed in 60..65 {
        let weather = Weather { delay: Duration::from_millis(15), ..Weather::CALM };
        let mut world = World::new(seed, 1, weather);
        let viewer = world.join(0);
        world.network.lines.insert(viewer, Line::new(1_000_000, QUEUE));
        let mut consumers = Vec::new();
        for camera in 1..=2 {
            let publisher = world.join(0);
            let mut source = Source::video(camera, 100 * camera, "1", None, world.now);
            // 740 kbit/s.
            (source.packets_per_frame, source.payload_len) = (3, 1000);
            let video = world.publish(publisher, vec![source]);
            consumers.push(world.consume(viewer, video));
        }
        world.run(seconds(30));
        world.check_sinks();
        let mut taken = 0;
        let mut call = Call { world, viewer, consumer: consumers[0].0, ssrc: consumers[0].1 };
        for (consumer, ssrc) in consumers {
            (call.consumer, call.ssrc) = (consumer, ssrc);
            taken += call.count(What::Pause, Why::BandwidthShort);
        }
        let queueing = queueing(&call.world.network.delays[&viewer]);
        println!("1 Mbit/s for two of 740 kbit/s: {taken} taken away, queueing p95 {queueing:.1?}");
        assert!(taken <= 4, "seed {seed}: {taken}");
    }
}

/// Probes are the server's own doing: nothing is probed where nobody wants more than there is.
#[test]
fn a_line_that_carries_everything_wanted_is_not_probed_for_more() {
    let mut call = call(44, 50_000_000);
    call.world.run(seconds(20));
    assert_eq!(call.layer(), Some(2));
    let before = call.stats().probation_sent.bytes;
    assert!(before > 0, "that took probes");
    call.world.run(seconds(30));
    assert_eq!(call.stats().probation_sent.bytes, before);
}
