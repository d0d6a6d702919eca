//! Who is asked when, what is told of shards that do not answer, and who shares an answer.

use hyper::body::Bytes;
use tokio::sync::oneshot::{self, Receiver};
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Reader};
use crate::control::refusal::Refusal;
use crate::control::tests::lab::Lab;
use crate::shard::mailbox::{Command, ShardId, Snapshot};

impl Lab {
    fn scrape(&mut self) -> Receiver<Result<Bytes, Refusal>> {
        let (answer, answered) = oneshot::channel();
        self.rooms.scrape(&Reader::Insider, answer);
        answered
    }

    /// The tokens of the snapshots that a shard was asked for.
    fn asked(&mut self, shard: usize) -> Vec<u64> {
        let token = |command| match command {
            Command::Snapshot { token } => Some(token),
            _ => None,
        };
        self.raw_commands(shard).into_iter().filter_map(token).collect()
    }

    /// A shard tells that it has slept so often.
    fn tell(&mut self, shard: u16, token: u64, sleeps: u64) {
        let mut snapshot = Box::<Snapshot>::default();
        snapshot.io.sleeps = sleeps;
        self.rooms.snapshot_came(ShardId(shard), token, snapshot);
    }

    fn let_the_last_answer_grow_old(&mut self) {
        self.rooms.scrapes.last = None;
    }

    fn give_up(&mut self) {
        self.rooms.expire(Instant::now() + ANSWER_WITHIN);
    }
}

/// Whether each of two shards is up, and how often it slept.
fn read(mut answer: Receiver<Result<Bytes, Refusal>>) -> [(bool, u64); 2] {
    let text = answer.try_recv().expect("an answer").expect("metrics");
    let text = std::str::from_utf8(&text).expect("text").to_owned();
    let value = |name: &str, shard: usize| {
        let start = format!("{name}{{shard=\"{shard}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start)).expect("a series");
        value.parse::<f64>().expect("a number") as u64
    };
    [0, 1].map(|it| (value("shardcast_shard_up", it) == 1, value("shardcast_sleeps_total", it)))
}

#[tokio::test]
async fn scrapes_share_one_round_and_its_answer() {
    let mut lab = Lab::new(2);
    let mut early = [lab.scrape(), lab.scrape()];
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![1], vec![1]));
    lab.tell(1, 1, 20);
    assert!(early[0].try_recv().is_err(), "shard 0 is missing");
    lab.tell(0, 1, 10);
    for answer in early {
        assert_eq!(read(answer), [(true, 10), (true, 20)]);
    }

    // A moment later it is given again, and nobody is asked.
    assert_eq!(read(lab.scrape()), [(true, 10), (true, 20)]);
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![], vec![]));
    lab.let_the_last_answer_grow_old();
    let _later = lab.scrape();
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![2], vec![2]));
    assert_eq!(lab.rooms.next_deadline(), lab.rooms.scrapes.deadline());
}

#[tokio::test]
async fn a_shard_that_is_stuck_delays_one_scrape_and_is_not_asked_again() {
    let mut lab = Lab::new(2);
    let first = lab.scrape();
    (0..2).for_each(|shard| lab.tell(shard, 1, 10));
    assert_eq!(read(first), [(true, 10), (true, 10)]);

    lab.let_the_last_answer_grow_old();
    let mut second = lab.scrape();
    lab.tell(0, 2, 11);
    assert!(lab.rooms.next_deadline().is_some_and(|at| at <= Instant::now() + ANSWER_WITHIN));
    lab.rooms.expire(Instant::now());
    assert!(second.try_recv().is_err(), "there is time left");
    lab.give_up();
    assert_eq!(read(second), [(true, 11), (false, 10)], "what it told last stands");
    assert_eq!(lab.rooms.next_deadline(), None);

    lab.let_the_last_answer_grow_old();
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![1, 2], vec![1, 2]));
    let third = lab.scrape();
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![3], vec![]));
    lab.tell(0, 3, 12);
    assert_eq!(read(third), [(true, 12), (false, 10)], "nobody waited for it");

    // It comes back: its late answer counts, and it is asked again.
    lab.tell(1, 2, 15);
    lab.let_the_last_answer_grow_old();
    let fourth = lab.scrape();
    assert_eq!((lab.asked(0), lab.asked(1)), (vec![4], vec![4]));
    (0..2).for_each(|shard| lab.tell(shard, 4, 16));
    assert_eq!(read(fourth), [(true, 16), (true, 16)]);
}

#[tokio::test]
async fn the_death_of_a_shard_ends_the_waiting_for_it() {
    let mut lab = Lab::new(2);
    let first = lab.scrape();
    lab.tell(0, 1, 10);
    lab.rooms.shard_failed(ShardId(1));
    assert_eq!(read(first), [(true, 10), (false, 0)]);
    lab.let_the_last_answer_grow_old();
    let second = lab.scrape();
    lab.tell(0, 2, 11);
    assert_eq!(read(second), [(true, 11), (false, 0)]);

    // With the last one, an answer needs nobody.
    lab.rooms.shard_failed(ShardId(0));
    lab.let_the_last_answer_grow_old();
    assert_eq!(read(lab.scrape()), [(false, 11), (false, 0)]);
}

#[tokio::test]
async fn whoever_hangs_up_or_answers_out_of_turn_does_no_harm() {
    let mut lab = Lab::new(1);
    drop(lab.scrape());
    lab.tell(0, 99, 1);
    lab.tell(7, 1, 1);
    lab.tell(0, 1, 1);
    lab.let_the_last_answer_grow_old();
    drop(lab.scrape());
    lab.give_up();
    assert_eq!(lab.rooms.next_deadline(), None);
}
