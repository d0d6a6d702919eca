//! How much of a shard one peer, or strangers, may take: settings of the media path.

use super::{Unusable, number};

/// The bounds of the media path, all of them usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaLimits {
    /// What a producer may send, in bit/s.
    pub producer_bitrate: u64,
    /// SSRCs that one transport may lead to producers.
    pub ssrcs: usize,
    /// Addresses that one transport remembers.
    pub addresses: usize,
    /// ClientHellos that one transport may be sent.
    pub dtls_attempts: u32,
    /// Checks per second and shard from addresses that have not passed one.
    pub stranger_checks: u32,
}

/// The same as they were given.
#[derive(clap::Args)]
pub(super) struct MediaSettings {
    /// What a producer may send, in bit/s, 100000 to 1000000000; what exceeds it is dropped.
    #[arg(long, env, default_value = "20000000")]
    max_producer_bitrate: String,
    /// SSRCs of producers per transport, 4 to 1024.
    #[arg(long, env, default_value = "128")]
    max_ssrcs_per_transport: String,
    /// Addresses that a transport remembers, 2 to 64.
    #[arg(long, env, default_value = "8")]
    max_addresses_per_transport: String,
    /// DTLS ClientHellos that a transport takes, repeated ones included, 10 to 10000.
    #[arg(long, env, default_value = "40")]
    max_dtls_attempts: String,
    /// STUN checks per second and shard that are looked at from addresses that have not passed one yet, 100
    /// to 1000000.
    #[arg(long, env, default_value = "5000")]
    max_stranger_checks: String,
}

impl MediaSettings {
    pub(super) fn validate(&self) -> Result<MediaLimits, Unusable> {
        let bitrate = &self.max_producer_bitrate;
        let ssrcs = &self.max_ssrcs_per_transport;
        let addresses = &self.max_addresses_per_transport;
        let attempts = &self.max_dtls_attempts;
        let checks = &self.max_stranger_checks;
        Ok(MediaLimits {
            producer_bitrate: number("MAX_PRODUCER_BITRATE", bitrate, 100_000..=1_000_000_000)?,
            ssrcs: number("MAX_SSRCS_PER_TRANSPORT", ssrcs, 4..=1024)?,
            addresses: number("MAX_ADDRESSES_PER_TRANSPORT", addresses, 2..=64)?,
            dtls_attempts: number("MAX_DTLS_ATTEMPTS", attempts, 10..=10_000)?,
            stranger_checks: number("MAX_STRANGER_CHECKS", checks, 100..=1_000_000)?,
        })
    }
}
