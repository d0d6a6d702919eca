//! Where log lines go and how they look.
//!
//! In development a line is for people, in production it is one JSON object. Both name the level in
//! capitals, and rooms and peers as the fields `room` and `peer`.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{panic, thread};

use tracing::error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{Config, Environment};

/// The modules that `MEDIASOUP_LOG_LEVEL` speaks about.
const MEDIA_TARGETS: [&str; 4] =
    ["shardcast::media", "shardcast::room", "shardcast::shard", "shardcast::transport"];

/// Panics told in one second; the counters have them all.
const PANICS_PER_SECOND: u64 = 10;

/// Sends the process's logs to standard output, as `config` wants them. Does nothing the second time.
pub fn start(config: &Config) {
    let lines = match config.environment {
        Environment::Production => fmt::layer().json().flatten_event(true).boxed(),
        Environment::Development => fmt::layer().with_ansi(io::stdout().is_terminal()).boxed(),
    };
    let _ = registry().with(lines.with_filter(filter(config))).try_init();
}

/// From now on a panic, on whatever thread, is one line of the log. At most ten a second are told: a
/// stranger who knows how to provoke one must not fill the log.
pub fn tell_panics() {
    let begin = Instant::now();
    let (second, told) = (AtomicU64::new(0), AtomicU64::new(0));
    panic::set_hook(Box::new(move |panic| {
        let now = begin.elapsed().as_secs();
        if second.swap(now, Ordering::Relaxed) != now {
            told.store(0, Ordering::Relaxed);
        }
        if told.fetch_add(1, Ordering::Relaxed) >= PANICS_PER_SECOND {
            return;
        }
        let location = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("without a text");
        let thread = thread::current();
        error!(thread = thread.name(), location, text, "Panic");
    }));
}

/// Libraries have little to say to an operator: only their warnings.
fn filter(config: &Config) -> Targets {
    Targets::new()
        .with_default(config.log_level.min(LevelFilter::WARN))
        .with_target("shardcast", config.log_level)
        .with_targets(MEDIA_TARGETS.map(|target| (target, config.media_log_level)))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn server_media_engine_and_libraries_have_their_own_levels() {
        let arguments = ["shardcast", "--log-level", "DEBUG", "--mediasoup-log-level", "warn"];
        let config = Config::load(arguments.map(Into::into)).unwrap();
        let filter = filter(&config);
        assert!(filter.would_enable("shardcast::control::hub", &Level::DEBUG));
        assert!(!filter.would_enable("shardcast::shard::uring", &Level::INFO));
        assert!(filter.would_enable("shardcast::shard::uring", &Level::WARN));
        assert!(!filter.would_enable("hyper::proto", &Level::INFO));
    }
}
