//! What a line is like, and the small language that says so: `rate=500k delay=30ms loss=2%`.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Longest delay, jitter, hold or queue that may be asked for: beyond it packets pile up, not arrive late.
pub const MAX_DELAY: Duration = Duration::from_secs(60);
/// Slowest line, bit/s: a full packet then takes 12 s.
pub const MIN_RATE: u64 = 1000;
/// Fastest line, bit/s: far beyond what the relay carries.
pub const MAX_RATE: u64 = 100_000_000_000;
/// Largest queue in bytes.
pub const MAX_QUEUE: usize = 64_000_000;
/// Most bytes that a packet can have beside its UDP payload: jumbo headers and tunnels fit.
pub const MAX_OVERHEAD: usize = 512;

/// One direction of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Bit/s of packets with their overhead; none: no limit.
    pub rate: Option<u64>,
    /// How much may wait for the line; what comes when it is full is dropped.
    pub queue: Queue,
    /// Bytes of headers that each packet adds on the line: 28 for IPv4 and UDP.
    pub overhead: usize,
    /// Time under way, behind the queue.
    pub delay: Duration,
    /// Up to this much is added to the delay, evenly at random. Order is kept.
    pub jitter: Duration,
    /// Share of packets lost, each by itself, before the queue.
    pub loss: f64,
    /// Loss in bursts, beside `loss`.
    pub burst: Option<Burst>,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets that are held back while later ones pass.
    pub reorder: f64,
    /// For how long they are held back.
    pub hold: Duration,
}

impl Default for Profile {
    /// A line that changes nothing.
    fn default() -> Self {
        Self {
            rate: None,
            queue: Queue::Time(Duration::from_millis(200)),
            overhead: 28,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: None,
            duplicate: 0.0,
            reorder: 0.0,
            hold: Duration::from_millis(10),
        }
    }
}

/// The bound of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// A packet that would wait longer is dropped.
    Time(Duration),
    /// A packet that would make more bytes wait is dropped. The packet on the line does not count.
    Bytes(usize),
}

/// Loss in bursts: the two-state model of Gilbert (1960) and Elliott (1963). Each packet first moves the
/// line between its states, then is lost with that state's share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Chance per packet that a good line turns bad.
    pub enter: f64,
    /// Chance per packet that a bad line turns good; its inverse is the mean length of a burst.
    pub leave: f64,
    /// Share lost while bad.
    pub loss: f64,
    /// Share lost while good.
    pub good_loss: f64,
}

/// A change of some of a profile's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change(Vec<Setting>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Rate(Option<u64>),
    Queue(Queue),
    Overhead(usize),
    Delay(Duration),
    Jitter(Duration),
    Loss(f64),
    Burst(Option<Burst>),
    Duplicate(f64),
    Reorder(f64),
    Hold(Duration),
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, profile: &mut Profile) {
        for setting in &self.0 {
            match *setting {
                Setting::Rate(rate) => profile.rate = rate,
                Setting::Queue(queue) => profile.queue = queue,
                Setting::Overhead(overhead) => profile.overhead = overhead,
                Setting::Delay(delay) => profile.delay = delay,
                Setting::Jitter(jitter) => profile.jitter = jitter,
                Setting::Loss(loss) => profile.loss = loss,
                Setting::Burst(burst) => profile.burst = burst,
                Setting::Duplicate(share) => profile.duplicate = share,
                Setting::Reorder(share) => profile.reorder = share,
                Setting::Hold(hold) => profile.hold = hold,
            }
        }
    }
}

/// A setting that cannot be used, in words for whoever wrote it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{setting:?}: {allowed}")]
pub struct BadSetting {
    setting: String,
    allowed: &'static str,
}

const NAMES: &str = "wanted is name=value, with one of the names rate, queue, overhead, delay, jitter, \
                     loss, burst, duplicate, reorder, hold";
const RATE: &str = "a rate is 1k to 100G (bit/s), or off";
const QUEUE: &str = "a queue is a time up to 60s, or bytes up to 64MB (2000B, 64kB)";
const OVERHEAD: &str = "an overhead is 0 to 512 (bytes)";
const TIME: &str = "a time is 0ms to 60s (us, ms or s)";
const SHARE: &str = "a share is 0% to 100%";
const BURST: &str =
    "a burst is ENTER/LEAVE, ENTER/LEAVE/LOSS or ENTER/LEAVE/LOSS/GOODLOSS in percent, or off";

impl FromStr for Change {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        text.split_whitespace().map(setting).collect::<Result<_, _>>().map(Self)
    }
}

fn setting(text: &str) -> Result<Setting, BadSetting> {
    let bad = |allowed| BadSetting { setting: text.to_owned(), allowed };
    let (name, value) = text.split_once('=').ok_or_else(|| bad(NAMES))?;
    let time = || duration(value).filter(|time| *time <= MAX_DELAY).ok_or_else(|| bad(TIME));
    let some_share = || share(value).ok_or_else(|| bad(SHARE));
    Ok(match name {
        "rate" if value == "off" => Setting::Rate(None),
        "rate" => Setting::Rate(Some(rate(value).ok_or_else(|| bad(RATE))?)),
        "queue" => Setting::Queue(queue(value).ok_or_else(|| bad(QUEUE))?),
        "overhead" => {
            let bytes = value.parse().ok().filter(|bytes| *bytes <= MAX_OVERHEAD);
            Setting::Overhead(bytes.ok_or_else(|| bad(OVERHEAD))?)
        }
        "delay" => Setting::Delay(time()?),
        "jitter" => Setting::Jitter(time()?),
        "hold" => Setting::Hold(time()?),
        "loss" => Setting::Loss(some_share()?),
        "duplicate" => Setting::Duplicate(some_share()?),
        "reorder" => Setting::Reorder(some_share()?),
        "burst" if value == "off" => Setting::Burst(None),
        "burst" => Setting::Burst(Some(burst(value).ok_or_else(|| bad(BURST))?)),
        _ => return Err(bad(NAMES)),
    })
}

/// A time with its unit: `250us`, `30ms`, `1.5s`.
pub fn duration(text: &str) -> Option<Duration> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))?;
    let seconds = positive(number)? * factor;
    // Whole nanoseconds: 0.03 s is not exactly 30 ms as a double.
    Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9).ok()
}

fn rate(text: &str) -> Option<u64> {
    let (number, factor) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(number) if text.ends_with('k') => (number, 1e3),
        Some(number) if text.ends_with('M') => (number, 1e6),
        Some(number) => (number, 1e9),
        None => (text, 1.0),
    };
    let rate = (positive(number)? * factor).round() as u64;
    (MIN_RATE..=MAX_RATE).contains(&rate).then_some(rate)
}

fn queue(text: &str) -> Option<Queue> {
    let Some(number) = text.strip_suffix('B') else {
        return duration(text).filter(|time| *time <= MAX_DELAY).map(Queue::Time);
    };
    let (number, factor) = match number.strip_suffix(['k', 'M']) {
        Some(rest) if number.ends_with('k') => (rest, 1e3),
        Some(rest) => (rest, 1e6),
        None => (number, 1.0),
    };
    let bytes = (positive(number)? * factor).round() as usize;
    (bytes <= MAX_QUEUE).then_some(Queue::Bytes(bytes))
}

fn burst(text: &str) -> Option<Burst> {
    let shares: Vec<f64> = text.split('/').map(share).collect::<Option<_>>()?;
    let (enter, leave, loss, good_loss) = match shares[..] {
        [enter, leave] => (enter, leave, 1.0, 0.0),
        [enter, leave, loss] => (enter, leave, loss, 0.0),
        [enter, leave, loss, good_loss] => (enter, leave, loss, good_loss),
        _ => return None,
    };
    Some(Burst { enter, leave, loss, good_loss })
}

fn share(text: &str) -> Option<f64> {
    let percent = positive(text.strip_suffix('%')?)?;
    (percent <= 100.0).then_some(percent / 100.0)
}

// Digits and a point: no sign, no "inf", no exponent.
fn positive(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Profile {
        let mut profile = Profile::default();
        text.parse::<Change>().expect(text).apply(&mut profile);
        profile
    }

    #[test]
    fn every_setting_has_its_place() {
        let profile = changed(
            "rate=1.5M queue=64kB overhead=48 delay=30ms jitter=500us loss=2% burst=1%/25%/80%/0.5% \
             duplicate=0.1% reorder=3% hold=0.02s",
        );
        let burst = Burst { enter: 0.01, leave: 0.25, loss: 0.8, good_loss: 0.005 };
        let expected = Profile {
            rate: Some(1_500_000),
            queue: Queue::Bytes(64_000),
            overhead: 48,
            delay: Duration::from_millis(30),
            jitter: Duration::from_micros(500),
            loss: 0.02,
            burst: Some(burst),
            duplicate: 0.001,
            reorder: 0.03,
            hold: Duration::from_millis(20),
        };
        assert_eq!(profile, expected);
    }

    #[test]
    fn what_is_not_named_stays() {
        let mut profile = changed("rate=500k delay=30ms burst=1%/50%");
        "loss=1% rate=off burst=off".parse::<Change>().expect("settings").apply(&mut profile);
        assert_eq!(profile, changed("delay=30ms loss=1%"));
        assert_eq!(changed(""), Profile::default());
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for text in [
            "rate",
            "speed=1M",
            "rate=0",
            "rate=999",
            "rate=101G",
            "rate=-1k",
            "rate=1e9",
            "rate=inf",
            "queue=1",
            "queue=61s",
            "queue=65MB",
            "overhead=513",
            "overhead=x",
            "delay=30",
            "delay=61s",
            "delay=ms",
            "loss=0.1",
            "loss=101%",
            "loss=NaN%",
            "burst=1%",
            "burst=1%/2%/3%/4%/5%",
            "reorder=%",
            "hold=1.2.3ms",
        ] {
            let refused = text.parse::<Change>().expect_err(text);
            assert!(refused.to_string().contains(text), "{refused}");
        }
    }
}
