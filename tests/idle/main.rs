//! What shards that do nothing cost. Alone in its process, since it looks at the process's memory.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use shardcast::id::ShardId;
use shardcast::room::parcel::Parcel;
use shardcast::room::{Datagram, Outbox};
use shardcast::shard::mailbox::{Command, Event};
use shardcast::shard::{Backend, Rooms, Shards, ShardsConfig, start_with};

/// Most resident memory of the process with one shard, in bytes: what the whole server may take.
const WITH_ONE: usize = 15 << 20;
/// Most that a further shard may add, in bytes.
const PER_SHARD: usize = 3 << 20;

/// Rooms without anybody.
struct Empty;

impl Rooms for Empty {
    fn receive(&mut self, _: Instant, _: &mut [Datagram<'_>], _: &mut impl Outbox) {}
    fn receive_parcel(&mut self, _: Instant, _: ShardId, _: &Parcel, _: &mut impl Outbox) {}
    fn command(&mut self, _: Instant, _: Command, _: &mut impl Outbox) {}
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
    fn handle_timeout(&mut self, _: Instant, _: &mut impl Outbox) {}
    fn poll_event(&mut self) -> Option<Event> {
        None
    }
}

fn start(workers: usize, backend: Backend) -> Shards {
    let bind = Ipv4Addr::LOCALHOST.into();
    let config = ShardsConfig { workers, ports: 20_000..=30_000, bind, backend };
    start_with(&config, |_| Empty).unwrap()
}

/// Resident memory of this process, in bytes (proc(5), `statm`).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn idle_shards_are_small() {
    const MORE: usize = 8;
    for backend in [Backend::Mmsg, Backend::Auto] {
        let one = start(1, backend);
        let with_one = resident();
        let begin = Instant::now();
        let four = start(4, backend);
        let start_up = begin.elapsed();
        let before = resident();
        let more = start(MORE, backend);
        let per_shard = resident().saturating_sub(before) / MORE;
        println!(
            "{}: {} kB with one shard, {} kB for each of {MORE} more, four started in {start_up:?}",
            one.chosen.backend,
            with_one >> 10,
            per_shard >> 10,
        );
        assert!(with_one < WITH_ONE);
        assert!(per_shard < PER_SHARD);
        for shards in [one, four, more] {
            shards.threads.shutdown(Duration::from_secs(20)).unwrap();
        }
    }
}
