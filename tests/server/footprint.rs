//! What the server costs while nobody is there. Run with `--no-capture` to see the figures.

use crate::process::Server;

/// Most resident memory with one shard, in bytes.
const WITH_ONE: usize = 15 << 20;
/// Most that a further shard may add, in bytes.
const PER_SHARD: usize = 3 << 20;
/// Further shards over which their cost is averaged.
const MORE: usize = 7;

#[test]
fn an_idle_server_is_small() {
    for backend in ["mmsg", "auto"] {
        let start = |workers: &str| Server::start(&[("WORKERS", workers), ("IO_BACKEND", backend)]);
        let (one, four) = (start("1"), start("4"));
        let many = start(&(1 + MORE).to_string());
        let with_one = one.resident();
        let per_shard = many.resident().saturating_sub(with_one) / MORE;
        println!(
            "{}: {} kB resident with one shard, {} kB for each of {MORE} more; four shards ready in {}",
            one.ready["io_backend"],
            with_one >> 10,
            per_shard >> 10,
            four.ready["shards_ready_in"],
        );
        assert!(with_one < WITH_ONE, "{with_one} bytes");
        assert!(per_shard < PER_SHARD, "{per_shard} bytes");
    }
}
