//! What it costs at least that one thread rings another on the same core and sleeps: what handing over to a sleeping
//! shard takes beside the packet itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mio::{Events, Poll, Token, Waker};

/// One thread's bell, and where it sleeps until that rings.
struct Sleeper {
    poll: Poll,
    events: Events,
}

impl Sleeper {
    fn new() -> (Self, Waker) {
        let poll = Poll::new().expect("epoll");
        let bell = Waker::new(poll.registry(), Token(0)).expect("eventfd");
        (Self { poll, events: Events::with_capacity(4) }, bell)
    }

    fn sleep(&mut self) {
        self.poll.poll(&mut self.events, None).expect("a wait");
    }
}

/// Two rings and two sleeps: there and back.
fn wake(criterion: &mut Criterion) {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.first().copied());
    let core = core.expect("cores are known");
    core_affinity::set_for_current(core);
    let ((mut own, own_bell), (mut other, other_bell)) = (Sleeper::new(), Sleeper::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            core_affinity::set_for_current(core);
            while !is_over.load(Ordering::Acquire) {
                other.sleep();
                own_bell.wake().expect("an eventfd");
            }
        }
    });
    let mut group = criterion.benchmark_group("wake");
    group.throughput(Throughput::Elements(2));
    group.bench_function("there and back on one core", |bencher| {
        let there_and_back = || {
            other_bell.wake().expect("an eventfd");
            own.sleep();
        };
        bencher.iter(there_and_back);
    });
    group.finish();
    is_over.store(true, Ordering::Release);
    other_bell.wake().expect("an eventfd");
    answers.join().expect("the other thread ends");
}

criterion_group!(benches, wake);
criterion_main!(benches);
