//! What renumbering a packet for one consumer takes: all forwarded, some left out, and found again for a NACK.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shardcast::media::clock::Retiming;
use shardcast::media::rewrite::Rewriter;
use shardcast::wire::seq::SeqNo;

/// A consumer whose stream has begun.
fn begun() -> Rewriter<()> {
    let mut rewriter = Rewriter::new(SeqNo(1000));
    rewriter.cut(0, SeqNo(1), Retiming::by(77), ());
    rewriter
}

fn rewrite(criterion: &mut Criterion) {
    criterion.bench_function("rewrite/every packet", |bencher| {
        let (mut rewriter, mut seq) = (begun(), SeqNo(0));
        bencher.iter(|| {
            seq.0 += 1;
            rewriter.map(0, black_box(seq), ())
        });
    });
    criterion.bench_function("rewrite/every other left out", |bencher| {
        let (mut rewriter, mut seq) = (begun(), SeqNo(0));
        bencher.iter(|| {
            seq.0 += 2;
            let left_out = rewriter.skip(0, black_box(SeqNo(seq.0 - 1)), None);
            (left_out, rewriter.map(0, black_box(seq), ()))
        });
    });
    criterion.bench_function("rewrite/find for a NACK", |bencher| {
        let mut rewriter = begun();
        let last = (1..=3000).filter_map(|seq| rewriter.map(0, SeqNo(seq), ())).last();
        let wire = last.expect("mapped").seq.wire();
        bencher.iter(|| rewriter.find(black_box(wire.wrapping_sub(500))));
    });
}

criterion_group!(benches, rewrite);
criterion_main!(benches);
