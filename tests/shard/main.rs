//! Whole shards, threads and sockets and all, with a double in the place of the rooms. On loopback
//! only.

mod double;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use shardcast::id::{ShardId, TransportId};
use shardcast::shard::mailbox::{CloseReason, Command, Event, ShardEvent};
use shardcast::shard::{Backend, Limits, Shards, ShardsConfig, StartError, Unclean, start_with};

use double::{Double, ECHO, FAN, GIVE, HOLD, PANIC, Seen, TIMER};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Set on a machine that forbids io_uring, so that its tests pass without having run. Without it
/// they fail there.
const WITHOUT_URING: &str = "SHARDCAST_TEST_WITHOUT_URING";
/// Ports beside those that the system gives out by itself; taken ones are skipped.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=30_000;

/// One test per backend.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod mmsg {
            $(#[test] fn $test() { super::$test(super::Backend::Mmsg); })*
        }
        mod uring {
            $(#[test] fn $test() {
                if std::env::var_os(super::WITHOUT_URING).is_some() {
                    println!("not run: {} is set", super::WITHOUT_URING);
                    return;
                }
                super::$test(super::Backend::Uring);
            })*
        }
    };
}

for_both!(
    datagrams_come_back_in_order,
    one_drain_may_fill_several_batches,
    arrival_is_when_the_kernel_got_it,
    commands_wake_and_events_come_back,
    timers_fire,
    parcels_cross_in_order,
    a_full_queue_drops_and_flows_again,
    shutdown_reaches_the_rooms_and_ends_the_threads,
    a_stuck_shard_is_named,
    a_shard_that_fails_begins_anew_alone,
    a_stuck_shard_is_told_of_and_given_up,
);

/// Running shards with doubles, and a client.
struct Bench {
    shards: Shards,
    client: UdpSocket,
    seen: Receiver<Seen>,
    hold: Arc<Barrier>,
}

fn config(workers: usize, backend: Backend) -> ShardsConfig {
    let (bind, limits) = (Ipv4Addr::LOCALHOST.into(), Limits::default());
    ShardsConfig { workers, ports: PORTS, bind, backend, limits }
}

impl Bench {
    fn new(workers: usize, backend: Backend) -> Self {
        let (report, seen) = mpsc::channel();
        let hold = Arc::new(Barrier::new(2));
        let shards = start_with(&config(workers, backend), Double::maker(report, hold.clone()))
            .unwrap_or_else(|error| panic!("{error}; set {WITHOUT_URING} to go without io_uring"));
        assert_eq!(shards.backend.to_string(), format!("{backend:?}").to_lowercase());
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { shards, client, seen, hold }
    }

    fn send(&self, shard: usize, parts: &[&[u8]]) {
        let port = self.shards.mailboxes[shard].port;
        self.client.send_to(&parts.concat(), (Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    /// The next answer, which must be one of this shard.
    fn answer(&self, shard: usize) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let (len, from) = self.client.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(from.port(), self.shards.mailboxes[shard].port);
        buffer[..len].to_vec()
    }

    fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a report")
    }

    /// The numbers of the next `count` parcels that reach shard 1 from shard 0.
    fn parcels(&self, count: usize) -> Vec<u16> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            match self.seen() {
                Seen::Parcel(ShardId(1), ShardId(0), number) => numbers.push(number),
                Seen::Datagram(..) => {}
                other => panic!("{other:?}"),
            }
        }
        numbers
    }

    /// Makes a shard busy until [`Self::release`].
    fn hold(&self, shard: usize) {
        self.send(shard, &[HOLD]);
        self.hold.wait();
    }

    fn release(&self) {
        self.hold.wait();
    }

    fn end(self) {
        self.shards.threads.shutdown(PATIENCE).unwrap();
    }
}

fn datagrams_come_back_in_order(backend: Backend) {
    // Several drains, several batches, several arenas; in windows that no socket buffer loses.
    const WINDOW: u32 = 40;
    let bench = Bench::new(1, backend);
    for window in 0..50 {
        let numbers = window * WINDOW..(window + 1) * WINDOW;
        for number in numbers.clone() {
            let padding = vec![number as u8; number as usize % 1400];
            bench.send(0, &[ECHO, &number.to_be_bytes(), &padding]);
        }
        for number in numbers {
            let expected =
                [ECHO, &number.to_be_bytes(), &vec![number as u8; number as usize % 1400]].concat();
            assert_eq!(bench.answer(0), expected);
        }
    }
    bench.end();
}

fn one_drain_may_fill_several_batches(backend: Backend) {
    // More than the send queue's 256 places, and no more than the client's receive buffer takes.
    const COUNT: u16 = 400;
    let bench = Bench::new(1, backend);
    socket2::SockRef::from(&bench.client).set_recv_buffer_size(1 << 20).unwrap();
    for _ in 0..10 {
        bench.send(0, &[FAN, &COUNT.to_be_bytes()]);
        for number in 0..COUNT {
            assert_eq!(bench.answer(0), number.to_be_bytes());
        }
    }
    bench.end();
}

fn arrival_is_when_the_kernel_got_it(backend: Backend) {
    /// How long the shard does not look at the datagram, at least.
    const BUSY: Duration = Duration::from_millis(30);
    let bench = Bench::new(1, backend);
    let deadline = Instant::now() + PATIENCE;
    // The kernel begins to stamp a moment after the machine's first socket asked for it.
    loop {
        bench.hold(0);
        assert!(matches!(bench.seen(), Seen::Datagram(..)));
        bench.send(0, &[ECHO]);
        let sent = Instant::now();
        std::thread::sleep(BUSY);
        bench.release();
        let Seen::Datagram(_, arrival) = bench.seen() else { panic!("no datagram") };
        bench.answer(0);
        if arrival < sent + BUSY / 2 {
            break;
        }
        assert!(Instant::now() < deadline, "the arrival is that of the drain");
    }
    bench.end();
}

fn commands_wake_and_events_come_back(backend: Backend) {
    let mut bench = Bench::new(2, backend);
    for shard in [0, 1, 1, 0].repeat(50) {
        let id = TransportId::random();
        assert!(bench.shards.mailboxes[shard].send(Command::RemoveTransport(id)));
        let event = block_on_event(&mut bench.shards);
        let expected = Event::TransportClosed { id, reason: CloseReason::DtlsClosed };
        let ShardEvent::Told(from, event) = event else { panic!("{event:?}") };
        assert_eq!((from, event), (ShardId(shard as u16), expected));
    }
    bench.end();
}

fn block_on_event(shards: &mut Shards) -> ShardEvent {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let event =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, shards.events.recv()).await });
    event.expect("an event in time").expect("a shard to tell it")
}

fn timers_fire(backend: Backend) {
    let bench = Bench::new(1, backend);
    for millis in [0_u16, 1, 30] {
        bench.send(0, &[TIMER, &millis.to_be_bytes()]);
        assert_eq!(bench.answer(0), ECHO);
    }
    bench.end();
}

fn parcels_cross_in_order(backend: Backend) {
    let bench = Bench::new(2, backend);
    for _ in 0..20 {
        bench.send(0, &[GIVE, &[1], &100_u16.to_be_bytes()]);
        assert_eq!(bench.answer(0), 100_u16.to_be_bytes());
        assert!(bench.parcels(100).into_iter().eq(0..100));
    }
    bench.end();
}

fn a_full_queue_drops_and_flows_again(backend: Backend) {
    let bench = Bench::new(2, backend);
    bench.hold(1);
    bench.send(0, &[GIVE, &[1], &600_u16.to_be_bytes()]);
    let taken = bench.answer(0);
    assert_eq!(taken, 512_u16.to_be_bytes(), "the queue's capacity");
    bench.send(0, &[GIVE, &[1], &1_u16.to_be_bytes()]);
    assert_eq!(bench.answer(0), 0_u16.to_be_bytes());
    bench.release();
    assert!(bench.parcels(512).into_iter().eq(0..512));
    bench.send(0, &[GIVE, &[1], &10_u16.to_be_bytes()]);
    assert_eq!(bench.answer(0), 10_u16.to_be_bytes());
    assert!(bench.parcels(10).into_iter().eq(0..10));
    bench.end();
}

fn shutdown_reaches_the_rooms_and_ends_the_threads(backend: Backend) {
    let bench = Bench::new(3, backend);
    let ids = [ShardId(0), ShardId(1), ShardId(2)];
    bench.shards.threads.shutdown(PATIENCE).unwrap();
    let mut told: Vec<_> = bench.seen.try_iter().collect();
    told.sort_by_key(|seen| match seen {
        Seen::Shutdown(id) => *id,
        other => panic!("{other:?}"),
    });
    assert_eq!(told, ids.map(Seen::Shutdown));
    assert!(!bench.shards.mailboxes[0].send(Command::Shutdown));
}

fn a_stuck_shard_is_named(backend: Backend) {
    let bench = Bench::new(2, backend);
    bench.hold(1);
    let outcome = bench.shards.threads.shutdown(Duration::from_millis(100));
    bench.hold.wait();
    let Err(Unclean(stuck)) = outcome else { panic!("a stuck shard ended") };
    // The other one has ended unless this machine is slower than the deadline.
    assert!(stuck.contains(&ShardId(1)), "{stuck:?}");
}

fn a_shard_that_fails_begins_anew_alone(backend: Backend) {
    let mut bench = Bench::new(2, backend);
    let port = bench.shards.mailboxes[0].port;
    for _ in 0..3 {
        // What waits for a life that ends is not carried into the next.
        bench.hold(0);
        bench.send(1, &[GIVE, &[0], &600_u16.to_be_bytes()]);
        assert_eq!(bench.answer(1), 512_u16.to_be_bytes());
        bench.send(0, &[PANIC]);
        bench.release();
        let failed = block_on_event(&mut bench.shards);
        assert!(matches!(failed, ShardEvent::Failed(ShardId(0))), "{failed:?}");
        // The other one goes on meanwhile.
        bench.send(1, &[ECHO]);
        assert_eq!(bench.answer(1), ECHO);
        let again = block_on_event(&mut bench.shards);
        let ShardEvent::Restarted(mailbox) = again else { panic!("{again:?}") };
        assert_eq!((mailbox.shard, mailbox.port), (ShardId(0), port));
        assert_eq!(mailbox.core, bench.shards.mailboxes[0].core);
        assert!(!bench.shards.mailboxes[0].send(Command::RemoveTransport(TransportId::random())));
        bench.shards.mailboxes[0] = mailbox;
        assert!(bench.shards.mailboxes[0].send(Command::RemoveTransport(TransportId::random())));
        let told = block_on_event(&mut bench.shards);
        assert!(matches!(told, ShardEvent::Told(ShardId(0), _)), "{told:?}");
        bench.seen.try_iter().for_each(drop);
        // Both ways between the shards are open.
        bench.send(0, &[GIVE, &[1], &10_u16.to_be_bytes()]);
        assert_eq!(bench.answer(0), 10_u16.to_be_bytes());
        assert!(bench.parcels(10).into_iter().eq(0..10));
        bench.send(1, &[GIVE, &[0], &10_u16.to_be_bytes()]);
        assert_eq!(bench.answer(1), 10_u16.to_be_bytes());
        for number in 0..10 {
            while bench.seen() != Seen::Parcel(ShardId(0), ShardId(1), number) {}
        }
    }
    bench.end();
}

fn a_stuck_shard_is_told_of_and_given_up(backend: Backend) {
    let mut bench = Bench::new(2, backend);
    bench.send(1, &[HOLD, b"late"]);
    bench.hold.wait();
    let stuck = block_on_event(&mut bench.shards);
    assert!(matches!(stuck, ShardEvent::Stuck(ShardId(1))), "{stuck:?}");
    let failed = block_on_event(&mut bench.shards);
    assert!(matches!(failed, ShardEvent::Failed(ShardId(1))), "{failed:?}");
    bench.release();
    // It ends where it stood: what it has to say to clients and control is not said. Another one takes its place.
    let again = block_on_event(&mut bench.shards);
    let ShardEvent::Restarted(mailbox) = again else { panic!("{again:?}") };
    assert_eq!(mailbox.shard, ShardId(1));
    bench.send(1, &[ECHO]);
    assert_eq!(bench.answer(1), ECHO);
    bench.end();
}

#[test]
fn shards_take_ports_of_their_own_and_share_cores() {
    let bench = Bench::new(5, Backend::Mmsg);
    let ports: Vec<_> = bench.shards.mailboxes.iter().map(|mailbox| mailbox.port).collect();
    assert!(ports.is_sorted_by(|one, next| one < next), "{ports:?}");
    assert!(ports.iter().all(|port| PORTS.contains(port)));
    let allowed = core_affinity::get_core_ids().unwrap();
    for (index, mailbox) in bench.shards.mailboxes.iter().enumerate() {
        assert_eq!(mailbox.shard, ShardId(index as u16));
        assert_eq!(mailbox.core, Some(allowed[index % allowed.len()].id));
    }
    bench.end();
}

fn start(config: &ShardsConfig) -> Result<Shards, StartError> {
    let (report, _) = mpsc::channel();
    start_with(config, Double::maker(report, Arc::new(Barrier::new(2))))
}

#[test]
fn a_used_up_port_range_is_said_in_one_line() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = ShardsConfig { ports: port..=port, ..config(1, Backend::Auto) };
    let Err(error) = start(&config) else { panic!("bound a taken port") };
    assert_eq!(error.to_string(), format!("no free UDP port left in {port}-{port} for shard 0"));
}

#[test]
fn an_address_of_another_machine_is_said_in_one_line() {
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    let config = ShardsConfig { bind: elsewhere, ..config(1, Backend::Auto) };
    let Err(error) = start(&config) else { panic!("bound a foreign address") };
    assert!(error.to_string().starts_with("cannot bind UDP 192.0.2.1: "), "{error}");
}

#[test]
fn no_shards_and_too_many_are_refused() {
    for workers in [0, shardcast::shard::MAX_SHARDS + 1] {
        let outcome = start(&config(workers, Backend::Auto));
        assert!(matches!(outcome, Err(StartError::Workers(asked)) if asked == workers));
    }
}
