//! Where log lines go and how they look.
//!
//! In development a line is for people, in production it is one JSON object. Both name the level in
//! capitals, and rooms and peers as the fields `room` and `peer`.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{Config, Environment};

/// The modules that `MEDIASOUP_LOG_LEVEL` speaks about.
const MEDIA_TARGETS: [&str; 4] =
    ["shardcast::media", "shardcast::room", "shardcast::shard", "shardcast::transport"];

/// Sends the process's logs to standard output, as `config` wants them. Does nothing the second time.
pub fn start(config: &Config) {
    let lines = match config.environment {
        Environment::Production => fmt::layer().json().flatten_event(true).boxed(),
        Environment::Development => fmt::layer().with_ansi(io::stdout().is_terminal()).boxed(),
    };
    let _ = registry().with(lines.with_filter(filter(config))).try_init();
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
