//! Who takes part: scenarios, turned into rooms of peers with what each sends, receives, and when.

use std::time::Duration;

use crate::clock::nanos;
use crate::settings::Settings;
use crate::source::Turns;

/// Peers of a room beside the storm, where those come who come apart.
const APART: usize = 10;

/// Known kinds of load.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// One publisher (or --publishers) to --peers receivers, video
    #[default]
    Livestream,
    /// Each of --peers sends audio and video to all others
    Meeting,
    /// Each of --peers sends audio; speakers alternate
    Audio,
    /// A livestream to --peers, into which --joiners more come --within a moment
    Storm,
    /// A meeting whose peers leave and come again, --churn of them a second
    Churn,
    /// A churn of which some leavers vanish, with malformed traffic and a client that never reads; at the end
    /// the server must have lost nothing and keep nothing
    Soak,
    /// Peers that only connect
    Idle,
}

/// How a peer leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// It says goodbye.
    #[default]
    Politely,
    /// Its connection breaks.
    Abruptly,
    /// Its connection stays, but nothing comes of it any more.
    Silently,
}

/// One peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerPlan {
    /// Its room's number.
    pub room: usize,
    /// Its number in the room.
    pub number: usize,
    /// Whether it sends audio, and when it speaks.
    pub audio: Option<Option<(u64, u64)>>,
    /// Whether it sends video.
    pub video: bool,
    /// Whether it has a receiving transport and consumes all that others send.
    pub receives: bool,
    /// With several encodings, whose highest layer it sees; it sees the lowest of all others.
    pub spotlight: Option<usize>,
    /// When it joins after measuring begins; none: before.
    pub joins: Option<Duration>,
    /// When it leaves after measuring begins.
    pub leaves: Option<Duration>,
    /// How.
    pub leaving: Leaving,
}

impl PeerPlan {
    /// Its room and its number there.
    pub fn place(&self) -> (usize, usize) {
        (self.room, self.number)
    }

    /// Whether it sends anything.
    pub fn sends(&self) -> bool {
        self.video || self.audio.is_some()
    }

    /// When it speaks, if it takes turns.
    pub fn turns(&self, length: Duration) -> Option<Turns> {
        let (index, of) = self.audio.flatten()?;
        Some(Turns { index, of, length: nanos(length) })
    }
}

/// All peers of a run: publishers first, so that others find them.
pub fn peers(settings: &Settings) -> Vec<PeerPlan> {
    let mut all: Vec<_> = (0..settings.rooms).flat_map(|room| room_of(settings, room)).collect();
    all.sort_by_key(|peer| (peer.joins, !peer.sends()));
    all
}

fn room_of(settings: &Settings, room: usize) -> Vec<PeerPlan> {
    let quiet = PeerPlan {
        room,
        number: 0,
        audio: None,
        video: false,
        receives: true,
        spotlight: None,
        joins: None,
        leaves: None,
        leaving: Leaving::Politely,
    };
    let count = settings.peers;
    let mut peers: Vec<_> = match settings.scenario {
        Scenario::Livestream | Scenario::Storm => {
            let audio = settings.with_audio.then_some(None);
            let publisher = PeerPlan { receives: false, video: true, audio, ..quiet.clone() };
            let viewers = vec![quiet.clone(); count];
            let publishers = vec![publisher; settings.publishers];
            publishers.into_iter().chain(viewers).collect()
        }
        Scenario::Meeting | Scenario::Churn | Scenario::Soak => {
            let speaks = |index: usize| Some(Some((index as u64, count as u64)));
            let member = |index| PeerPlan {
                audio: speaks(index),
                video: true,
                spotlight: settings.simulcast.then_some((index + 1) % count),
                ..quiet.clone()
            };
            (0..count).map(member).collect()
        }
        Scenario::Audio => {
            let speaks = |index: usize| match settings.turn.is_zero() {
                true => Some(None),
                false => Some(Some((index as u64, count as u64))),
            };
            (0..count).map(|index| PeerPlan { audio: speaks(index), ..quiet.clone() }).collect()
        }
        Scenario::Idle => vec![quiet.clone(); count],
    };
    if settings.scenario == Scenario::Storm {
        let step = settings.within.div_f64(settings.joiners.max(1) as f64);
        let joins = |index: usize| Some(step.mul_f64(index as f64));
        let apart = |index: usize| settings.rooms + (room * settings.joiners + index) / APART;
        let place = |index: usize| if settings.apart { apart(index) } else { room };
        let joiner = |i| PeerPlan { joins: joins(i), room: place(i), ..quiet.clone() };
        peers.extend((0..settings.joiners).map(joiner));
    }
    if matches!(settings.scenario, Scenario::Churn | Scenario::Soak) {
        churn(settings, room, &mut peers);
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.number = number;
    }
    peers
}

/// One after the other leaves, and another like it comes at the same time.
fn churn(settings: &Settings, room: usize, peers: &mut Vec<PeerPlan>) {
    if settings.churn <= 0.0 || peers.is_empty() {
        return;
    }
    let step = Duration::from_secs_f64(settings.rooms as f64 / settings.churn);
    // Rooms take turns.
    let first = step.mul_f64((room + 1) as f64 / settings.rooms as f64);
    let (mut at, mut next) = (first, 0);
    while at < settings.seconds {
        peers[next].leaves = Some(at);
        if settings.scenario == Scenario::Soak {
            use Leaving::{Abruptly, Politely, Silently};
            peers[next].leaving = [Abruptly, Silently, Politely][next % 3];
        }
        let leaving = Leaving::Politely;
        let successor = PeerPlan { joins: Some(at), leaves: None, leaving, ..peers[next].clone() };
        peers.push(successor);
        (at, next) = (at + step, next + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(scenario: Scenario, change: impl FnOnce(&mut Settings)) -> Vec<PeerPlan> {
        let mut settings = Settings { scenario, peers: 4, ..Settings::default() };
        change(&mut settings);
        peers(&settings)
    }

    #[test]
    fn a_livestream_has_its_publisher_first() {
        let peers = plan(Scenario::Livestream, |settings| settings.with_audio = true);
        assert_eq!(peers.len(), 5);
        assert!(peers[0].video && !peers[0].receives && peers[0].audio == Some(None));
        assert!(peers[1..].iter().all(|p| p.receives && !p.video && p.audio.is_none()));
    }

    #[test]
    fn in_a_meeting_each_sees_one_large() {
        let peers = plan(Scenario::Meeting, |settings| settings.simulcast = true);
        let seen: Vec<_> = peers.iter().map(|peer| peer.spotlight).collect();
        assert_eq!(seen, [Some(1), Some(2), Some(3), Some(0)]);
        assert_eq!(plan(Scenario::Meeting, |_| ())[0].spotlight, None);
    }

    #[test]
    fn rooms_are_alike_and_speakers_take_turns() {
        let peers = plan(Scenario::Audio, |settings| settings.rooms = 3);
        assert_eq!(peers.len(), 12);
        assert_eq!(peers.iter().filter(|peer| peer.room == 2).count(), 4);
        let turns = peers[5].turns(Duration::from_secs(2)).expect("turns");
        assert_eq!((turns.index, turns.of, turns.length), (1, 4, 2_000_000_000));
        let always = plan(Scenario::Audio, |settings| settings.turn = Duration::ZERO);
        assert!(always[0].turns(Duration::ZERO).is_none() && always[0].audio.is_some());
    }

    #[test]
    fn a_storm_comes_within_its_time() {
        let peers = plan(Scenario::Storm, |settings| {
            (settings.joiners, settings.within) = (100, Duration::from_secs(1));
        });
        let joins: Vec<_> = peers.iter().filter_map(|peer| peer.joins).collect();
        assert_eq!((peers.len(), joins.len()), (105, 100));
        assert!(joins.is_sorted() && joins[99] < Duration::from_secs(1));
        let apart = plan(Scenario::Storm, |settings| settings.apart = true);
        assert!(apart.iter().all(|peer| (peer.room == 0) == peer.joins.is_none()));
        assert_eq!(apart.iter().filter(|peer| peer.room == 1).count(), APART);
    }

    #[test]
    fn in_a_soak_peers_leave_in_all_ways() {
        let peers = plan(Scenario::Soak, |settings| settings.churn = 1.0);
        let leaving = peers.iter().filter(|peer| peer.leaves.is_some()).map(|peer| peer.leaving);
        let ways: Vec<_> = leaving.collect();
        for way in [Leaving::Politely, Leaving::Abruptly, Leaving::Silently] {
            assert_eq!(ways.iter().filter(|own| **own == way).count(), 3, "{way:?}");
        }
    }

    #[test]
    fn who_leaves_is_replaced() {
        let peers = plan(Scenario::Churn, |settings| {
            (settings.churn, settings.rooms, settings.seconds) = (4.0, 2, Duration::from_secs(5));
        });
        let leaves = peers.iter().filter(|peer| peer.leaves.is_some()).count();
        let joins = peers.iter().filter(|peer| peer.joins.is_some()).count();
        assert_eq!((leaves, joins), (19, 19), "4 a second, none at the very end");
        let mut numbers: Vec<_> = peers.iter().map(|peer| (peer.room, peer.number)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), peers.len());
    }
}
