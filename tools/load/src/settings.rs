//! Flags and scenario files: the same names in both, and a flag wins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;
use shardcast_impair::script::{Script, Timed};

use crate::dtls::{Library, Profile};
use crate::flood::{self, Flood};
use crate::plan::Scenario;

/// One run, complete.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port of signaling.
    pub server: String,
    /// See [`Scenario`].
    pub scenario: Scenario,
    /// Rooms, all alike.
    pub rooms: usize,
    /// Peers of a room; in a livestream, receivers.
    pub peers: usize,
    /// Publishers of a livestream.
    pub publishers: usize,
    /// A livestream has audio too.
    pub with_audio: bool,
    /// Video, bit/s; with simulcast, all encodings together.
    pub bitrate: u64,
    /// Audio, bit/s.
    pub audio_bitrate: u64,
    /// Frames per second.
    pub fps: u32,
    /// Largest RTP packet in bytes.
    pub packet: usize,
    /// Three encodings, told by RID.
    pub simulcast: bool,
    /// Key frames come this often without being asked for; none: never.
    pub key_interval: Option<Duration>,
    /// How long each speaks; zero: all at once.
    pub turn: Duration,
    /// Peers of a storm, and the time within which they come.
    pub joiners: usize,
    /// They come into rooms where nobody sends.
    pub apart: bool,
    /// See `joiners`.
    pub within: Duration,
    /// Peers replaced per second.
    pub churn: f64,
    /// Of a soak: malformed datagrams per packet that peers send, half of them from strangers.
    pub malformed: f64,
    /// How long is measured, and what is waited before.
    pub seconds: Duration,
    /// See `seconds`.
    pub warmup: Duration,
    /// How long the server is watched afterwards, while all are there and nobody sends.
    pub rest: Duration,
    /// Joins under way at a time before measuring.
    pub joining: usize,
    /// Transport-wide feedback, how often; none: not negotiated.
    pub feedback: Option<Duration>,
    /// Who shakes hands, and for what.
    pub dtls: Library,
    /// See `dtls`.
    pub profile: Profile,
    /// One in so many packets is opened.
    pub sample: u32,
    /// Receivers take runs of datagrams whole.
    pub gro: bool,
    /// How often workers look at their sockets.
    pub poll: Duration,
    /// Cores to run on; none: any.
    pub cpus: Vec<usize>,
    /// Worker threads.
    pub threads: usize,
    /// The server's process.
    pub pid: Option<u32>,
    /// The network between each transport and its socket.
    pub network: Option<Script>,
    /// Strangers while it is measured.
    pub flood: Option<Flood>,
    /// When a shard fails after measuring begins.
    pub kill_shard: Option<Duration>,
    /// Limits that decide the exit code.
    pub limits: Limits,
}

/// What a run must keep.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Percent of packets.
    pub loss: Option<f64>,
    /// Microseconds of added latency, at the 99th percentile of the slower of audio and video.
    pub p99: Option<f64>,
    /// CPU nanoseconds per forwarded packet.
    pub ns_per_packet: Option<f64>,
    /// From a shard's failure until its peers are back.
    pub recovery: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Settings::default().limits
    }
}

impl Default for Settings {
    fn default() -> Self {
        let file = File::default();
        file.settings(None, None).expect("what nobody set is usable")
    }
}

/// Simulated WebRTC peers that load an SFU and measure what it delivers and what that costs.
///
/// Exit code: 0 all well, 1 a limit is broken, 2 unusable settings, 3 the load could not keep its own
/// schedule and the figures mean nothing, 4 peers could not join.
#[derive(Parser)]
#[command(name = "shardcast-load", version, args_override_self = true)]
pub struct Arguments {
    /// A scenario in JSON: the names of these flags with `_`; flags change what it says
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    flags: File,
    /// The network of every peer, as tools/impair reads it
    #[arg(long, value_name = "FILE")]
    impair: Option<PathBuf>,
    /// A change of that network, timed from the first datagram: "0s both loss=2% delay=30ms". May be repeated
    #[arg(long, value_name = "TIME WHICH SETTINGS")]
    at: Vec<Timed>,
    /// Numbers of peers to try, one run each, until a limit breaks: 20,100,500
    #[arg(long, value_delimiter = ',', value_name = "PEERS")]
    pub ramp: Vec<usize>,
    /// Print the report in JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

macro_rules! file {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        /// What a file or flags say.
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        struct File { $($(#[$doc])* #[serde(default)] $name: Option<$type>,)* }

        impl File {
            /// What `self` does not say, `other` does.
            fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name)),* }
            }
        }
    };
}

file! {
    /// Host and port of signaling [default: 127.0.0.1:3000]
    #[arg(long)]
    server: String,
    /// What the peers do [default: livestream]
    #[arg(long, value_enum)]
    scenario: Scenario,
    /// Rooms, all alike [default: 1]
    #[arg(long)]
    rooms: usize,
    /// Peers of each room; in a livestream, receivers [default: 20]
    #[arg(long)]
    peers: usize,
    /// Publishers of a livestream [default: 1]
    #[arg(long)]
    publishers: usize,
    /// Whether a livestream has audio too [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    with_audio: bool,
    /// Video in kbit/s; with simulcast, of all encodings together [default: 2500]
    #[arg(long)]
    bitrate: u64,
    /// Audio in kbit/s [default: 32]
    #[arg(long)]
    audio_bitrate: u64,
    /// Frames per second [default: 30]
    #[arg(long)]
    fps: u32,
    /// Largest RTP packet in bytes, before it is sealed [default: 1200]
    #[arg(long)]
    packet: usize,
    /// Whether video has three encodings with three temporal layers; in a meeting each peer then sees one in
    /// its highest and all others in their lowest [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    simulcast: bool,
    /// Seconds between key frames that nobody asked for; 0: none come [default: 0]
    #[arg(long)]
    key_interval: f64,
    /// Seconds that each speaks, one after the other; 0: all at once [default: 2]
    #[arg(long)]
    turn: f64,
    /// Peers of a storm [default: 500]
    #[arg(long)]
    joiners: usize,
    /// Whether they come into other rooms, where nobody sends [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    apart: bool,
    /// Seconds within which they come [default: 1]
    #[arg(long)]
    within: f64,
    /// Peers replaced per second [default: 1]
    #[arg(long)]
    churn: f64,
    /// Percent of a soak's traffic that is malformed [default: 10]
    #[arg(long)]
    malformed: f64,
    /// Seconds to measure [default: 10]
    #[arg(long)]
    seconds: f64,
    /// Seconds between the last join and measuring [default: 2]
    #[arg(long)]
    warmup: f64,
    /// Seconds to watch the server afterwards, while all are there and nobody sends [default: 0]
    #[arg(long)]
    rest: f64,
    /// Joins under way at a time before measuring [default: 16]
    #[arg(long)]
    joining: usize,
    /// Milliseconds between transport-wide reports of a receiver; 0: it does not negotiate them [default: 100]
    #[arg(long)]
    feedback: u64,
    /// Who shakes hands [default: webrtc]
    #[arg(long, value_enum)]
    dtls: Library,
    /// The SRTP profile to offer, alone [default: gcm128]
    #[arg(long, value_enum)]
    profile: Profile,
    /// One in so many packets is opened and authenticated [default: 32]
    #[arg(long)]
    sample: u32,
    /// Whether receivers take runs of datagrams whole (UDP_GRO) [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    gro: bool,
    /// Microseconds between two looks of a worker at its sockets [default: 1000]
    #[arg(long)]
    poll: u64,
    /// Cores to run on: 1 or 2,3 [default: any]
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Worker threads [default: one per core given, else 1]
    #[arg(long)]
    threads: usize,
    /// The server's process, for its CPU time and memory
    #[arg(long)]
    pid: u32,
    /// What strangers send to the server's media ports while it is measured, from addresses in 127.0.0.0/8
    #[arg(long, value_enum)]
    flood: flood::Kind,
    /// Datagrams of strangers per second [default: 50000]
    #[arg(long)]
    flood_rate: u32,
    /// Seconds after measuring begins at which one shard is made to fail: of a livestream, a meeting or audio,
    /// on a server built with the feature `test-hooks`
    #[arg(long, value_name = "SECONDS")]
    kill_shard: f64,
    /// Most loss, in percent
    #[arg(long)]
    max_loss: f64,
    /// Longest added latency in microseconds, at the 99th percentile of audio and of video
    #[arg(long)]
    max_p99: f64,
    /// Most CPU nanoseconds of the server per forwarded packet
    #[arg(long)]
    max_ns_per_packet: f64,
    /// Longest time in seconds from --kill-shard until its peers send and receive all again [default: 5]
    #[arg(long)]
    max_recovery: f64,
}

/// Most peers that one run may have: sockets end before.
const MAX_PEERS: usize = 100_000;

impl Arguments {
    /// The settings of the run, or why they cannot be used.
    pub fn settings(&self) -> Result<Settings, String> {
        let file = match &self.file {
            Some(path) => serde_json::from_str(&read(path)?)
                .map_err(|e| format!("{}: {e}", path.display()))?,
            None => File::default(),
        };
        let mut network = None;
        if self.impair.is_some() || !self.at.is_empty() {
            let mut script = match &self.impair {
                Some(path) => Script::from_json(&read(path)?)
                    .map_err(|e| format!("{}: {e}", path.display()))?,
                None => Script::default(),
            };
            for timed in &self.at {
                script.add(timed.clone()).map_err(|error| error.to_string())?;
            }
            network = Some(script);
        }
        self.flags.clone().or(file).settings(network, self.ramp.iter().max().copied())
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

impl File {
    fn settings(self, network: Option<Script>, most: Option<usize>) -> Result<Settings, String> {
        let seconds = |name: &str, value: Option<f64>, default: f64| {
            let value = value.unwrap_or(default);
            match (0.0..=86_400.0).contains(&value) {
                true => Ok(Duration::from_secs_f64(value)),
                false => Err(format!("{name}: wanted is 0 to 86400 seconds")),
            }
        };
        let cpus = self.cpus.unwrap_or_default();
        let key_interval = seconds("key-interval", self.key_interval, 0.0)?;
        let feedback = self.feedback.unwrap_or(100);
        let settings = Settings {
            server: self.server.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            scenario: self.scenario.unwrap_or_default(),
            rooms: self.rooms.unwrap_or(1),
            peers: self.peers.unwrap_or(20),
            publishers: self.publishers.unwrap_or(1),
            with_audio: self.with_audio.unwrap_or(false),
            bitrate: self.bitrate.unwrap_or(2500) * 1000,
            audio_bitrate: self.audio_bitrate.unwrap_or(32) * 1000,
            fps: self.fps.unwrap_or(30),
            packet: self.packet.unwrap_or(1200),
            simulcast: self.simulcast.unwrap_or(false),
            key_interval: (!key_interval.is_zero()).then_some(key_interval),
            turn: seconds("turn", self.turn, 2.0)?,
            joiners: self.joiners.unwrap_or(500),
            apart: self.apart.unwrap_or(false),
            within: seconds("within", self.within, 1.0)?,
            churn: self.churn.unwrap_or(1.0),
            malformed: match self.scenario {
                Some(Scenario::Soak) => self.malformed.unwrap_or(10.0) / 100.0,
                _ => 0.0,
            },
            seconds: seconds("seconds", self.seconds, 10.0)?,
            warmup: seconds("warmup", self.warmup, 2.0)?,
            rest: seconds("rest", self.rest, 0.0)?,
            joining: self.joining.unwrap_or(16),
            feedback: (feedback > 0).then(|| Duration::from_millis(feedback)),
            dtls: self.dtls.unwrap_or(Library::Webrtc),
            profile: self.profile.unwrap_or(Profile::Gcm128),
            sample: self.sample.unwrap_or(32),
            gro: self.gro.unwrap_or(false),
            poll: Duration::from_micros(self.poll.unwrap_or(1000)),
            threads: self.threads.unwrap_or(cpus.len().max(1)),
            cpus,
            pid: self.pid,
            network,
            flood: self.flood.map(|kind| Flood { kind, rate: self.flood_rate.unwrap_or(50_000) }),
            kill_shard: self
                .kill_shard
                .map(|after| seconds("kill-shard", Some(after), after))
                .transpose()?,
            limits: Limits {
                loss: self.max_loss.or((self.scenario == Some(Scenario::Soak)).then_some(0.0)),
                p99: self.max_p99,
                ns_per_packet: self.max_ns_per_packet,
                recovery: seconds("max-recovery", self.max_recovery, 5.0)?,
            },
        };
        settings.check(most.unwrap_or(settings.peers))?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self, peers: usize) -> Result<(), String> {
        let within = |name: &str, value: f64, least: f64, most: f64| match value {
            value if (least..=most).contains(&value) => Ok(()),
            _ => Err(format!("{name}: wanted is {least} to {most}")),
        };
        within("rooms", self.rooms as f64, 1.0, MAX_PEERS as f64)?;
        within("peers", peers as f64, 1.0, (MAX_PEERS / self.rooms) as f64)?;
        within("publishers", self.publishers as f64, 1.0, 1000.0)?;
        within("joiners", self.joiners as f64, 0.0, MAX_PEERS as f64)?;
        within("churn", self.churn, 0.0, 10_000.0)?;
        within("malformed", self.malformed * 100.0, 0.0, 1000.0)?;
        within("bitrate", self.bitrate as f64 / 1e3, 10.0, 1e5)?;
        within("audio-bitrate", self.audio_bitrate as f64 / 1e3, 6.0, 510.0)?;
        within("fps", f64::from(self.fps), 1.0, 1000.0)?;
        within("packet", self.packet as f64, 200.0, 1400.0)?;
        within("seconds", self.seconds.as_secs_f64(), 0.5, 86_400.0)?;
        within("joining", self.joining as f64, 1.0, 10_000.0)?;
        within("sample", f64::from(self.sample), 1.0, 1e6)?;
        within("poll", self.poll.as_micros() as f64, 10.0, 1e5)?;
        within("threads", self.threads as f64, 1.0, 256.0)?;
        within("feedback", self.feedback.map_or(0.0, |f| f.as_millis() as f64), 0.0, 10_000.0)?;
        if self.limits.ns_per_packet.is_some() && self.pid.is_none() {
            return Err("max-ns-per-packet: the server's --pid is needed".to_owned());
        }
        let Some(after) = self.kill_shard else { return Ok(()) };
        if !matches!(self.scenario, Scenario::Livestream | Scenario::Meeting | Scenario::Audio) {
            return Err("kill-shard: wanted is a livestream, a meeting or audio".to_owned());
        }
        if after + self.limits.recovery > self.seconds {
            return Err("kill-shard: max-recovery after it, seconds must not be over".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Settings, String> {
        let all = [&["shardcast-load"], flags].concat();
        Arguments::try_parse_from(all).map_err(|error| error.to_string())?.settings()
    }

    #[test]
    fn a_file_and_flags_say_the_same_and_a_flag_wins() {
        let path = std::env::temp_dir().join(format!("load-{}.json", std::process::id()));
        let text = r#"{ "scenario": "audio", "rooms": 3, "profile": "sha1", "turn": 0.5 }"#;
        std::fs::write(&path, text).expect("a file");
        let name = path.to_str().expect("a name");
        let settings = parse(&["--file", name, "--rooms", "7", "--at", "0s both loss=1%"]);
        std::fs::remove_file(&path).expect("removed");
        let settings = settings.expect("usable");
        assert_eq!((settings.scenario, settings.rooms), (Scenario::Audio, 7));
        assert_eq!((settings.profile, settings.turn), (Profile::Sha1, Duration::from_millis(500)));
        assert_eq!(settings.network.expect("a network").timeline.len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (flags, name) in [
            (&["--rooms", "0"][..], "rooms"),
            (&["--rooms", "1000", "--peers", "101"], "peers"),
            (&["--peers", "5", "--ramp", "5,1000000"], "peers"),
            (&["--seconds=0.1"], "seconds"),
            (&["--within", "1e9"], "within"),
            (&["--packet", "60"], "packet"),
            (&["--poll", "0"], "poll"),
            (&["--max-ns-per-packet", "900"], "pid"),
            (&["--kill-shard", "6"], "kill-shard"),
            (&["--kill-shard", "1", "--scenario", "churn"], "kill-shard"),
            (&["--scenario", "party"], "party"),
            (&["--at", "loss=1%"], "loss=1%"),
        ] {
            let error = parse(flags).err().unwrap_or_else(|| panic!("{flags:?} is usable"));
            assert!(error.contains(name), "{flags:?}: {error}");
        }
    }
}
