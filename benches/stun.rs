//! What one ICE check costs: reading and verifying it, writing the answer, and both in a transport.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardcast::transport::{Transport, dtls, ice};
use shardcast::wire::MAX_DATAGRAM;
use shardcast::wire::stun::{Message, TransactionId, write};

/// A check as a browser sends it, but for attributes that we ignore.
fn check(credentials: &ice::Credentials) -> Vec<u8> {
    let username = format!("{}:peer", credentials.ufrag);
    let request = write::BindingRequest {
        transaction_id: TransactionId([7; 12]),
        username: username.as_bytes(),
        priority: 0x6e00_1eff,
        role: write::Role::Controlling(0x0123_4567_89ab_cdef),
        use_candidate: true,
    };
    let mut buffer = [0; 256];
    let len = write::request(&mut buffer, &request, credentials.password.as_bytes())
        .expect("it fits the buffer");
    buffer[..len].to_vec()
}

fn stun(criterion: &mut Criterion) {
    let credentials = ice::Credentials::random();
    let key = credentials.password.as_bytes();
    let bytes = check(&credentials);
    let from = SocketAddr::from(([192, 0, 2, 1], 4000));
    let mut group = criterion.benchmark_group("stun");
    group.throughput(Throughput::Elements(1));

    group.bench_function("parse", |bencher| {
        bencher.iter(|| Message::new_checked(black_box(&bytes)).map(|message| message.priority()));
    });
    group.bench_function("parse and verify", |bencher| {
        bencher.iter(|| {
            let message = Message::new_checked(black_box(&bytes)).expect("well-formed");
            (message.verify_integrity(key), message.fingerprint())
        });
    });
    let mut answer = [0; MAX_DATAGRAM];
    group.bench_function("answer", |bencher| {
        let id = TransactionId([7; 12]);
        bencher.iter(|| write::success(black_box(&mut answer), id, black_box(from), key));
    });
    let now = Instant::now();
    let identity = Arc::new(dtls::Identity::generate().expect("a certificate"));
    let mut transport = Transport::new(credentials.clone(), identity);
    group.bench_function("check in a transport", |bencher| {
        bencher.iter(|| transport.receive_stun(now, from, black_box(&bytes), &mut answer));
    });
    group.finish();
}

criterion_group!(benches, stun);
criterion_main!(benches);
