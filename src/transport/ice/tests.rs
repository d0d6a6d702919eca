//! Checks, nomination, consent and restarts.

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha1::Sha1;

use super::*;
use crate::wire::MAX_DATAGRAM;
use crate::wire::stun::TransactionId;
use crate::wire::stun::write::{BindingRequest, Role};

const CONTROLLING: Role = Role::Controlling(7);

/// An agent, its clock, and the checks that a peer sends it.
struct Bench {
    agent: Agent,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { agent: Agent::new(credentials("first")), now: Instant::now() }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A check from port `from`; the answer, if there is one.
    fn check(&mut self, from: u16, local: &Credentials, nominate: bool) -> Option<Vec<u8>> {
        let bytes = check(local, CONTROLLING, nominate);
        self.receive(from, &bytes)
    }

    fn receive(&mut self, from: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut answer = [0; MAX_DATAGRAM];
        let len = self.agent.receive(self.now, address(from), bytes, &mut answer)?;
        Some(answer[..len].to_vec())
    }

    fn selected_port(&self) -> Option<u16> {
        self.agent.selected().map(|addr| addr.port())
    }

    fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.agent.remotes().map(|addr| addr.port()).collect();
        ports.sort_unstable();
        ports
    }
}

fn credentials(name: &str) -> Credentials {
    Credentials { ufrag: name.to_owned(), password: format!("the password of {name}") }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

fn check(local: &Credentials, role: Role, nominate: bool) -> Vec<u8> {
    let username = format!("{}:peer", local.ufrag);
    let request = BindingRequest {
        transaction_id: TransactionId(*b"123456789012"),
        username: username.as_bytes(),
        priority: 1,
        role,
        use_candidate: nominate,
    };
    let mut buffer = [0; 256];
    let len = write::request(&mut buffer, &request, local.password.as_bytes()).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn a_check_is_answered_with_the_address_that_it_came_from() {
    let mut bench = Bench::new();
    let answer = bench.check(1, &credentials("first"), true).unwrap();
    let answer = Message::new_checked(&answer).unwrap();
    assert_eq!(answer.class(), Class::Success);
    assert_eq!(answer.transaction_id(), TransactionId(*b"123456789012"));
    assert_eq!(answer.mapped_address(), Some(address(1)));
    assert!(answer.verify_integrity(credentials("first").password.as_bytes()));
    assert_eq!(answer.fingerprint(), stun::Fingerprint::Right);
    assert_eq!(bench.selected_port(), Some(1));
}

/// A stranger's request gets no answer at all, so that nothing is reflected to a forged address.
#[test]
fn what_is_not_authentic_is_met_with_silence() {
    let mut bench = Bench::new();
    let wrong_password = Credentials { password: "guess".into(), ..credentials("first") };
    assert_eq!(bench.check(1, &wrong_password, true), None);
    assert_eq!(bench.check(1, &credentials("other"), true), None);
    let good = check(&credentials("first"), CONTROLLING, true);
    // With another type, the last attribute is one that may be ignored, as FINGERPRINT may be absent.
    let fingerprint_type = good.len() - 8..good.len() - 6;
    for byte in (0..good.len()).filter(|byte| !fingerprint_type.contains(byte)) {
        let mut bad = good.clone();
        bad[byte] ^= 0x20;
        assert_eq!(bench.receive(1, &bad), None, "byte {byte}");
    }
    for len in 0..good.len() {
        assert_eq!(bench.receive(1, &good[..len]), None, "{len} bytes");
    }
    assert_eq!((bench.selected_port(), bench.ports()), (None, vec![]));
    assert_eq!(bench.agent.next_timeout(), None);
}

#[test]
fn an_indication_is_taken_and_changes_nothing() {
    let mut bench = Bench::new();
    let mut buffer = [0; 64];
    let len = write::indication(&mut buffer, TransactionId([0; 12])).unwrap();
    assert_eq!(bench.receive(1, &buffer[..len]), Some(vec![]));
    assert!(bench.ports().is_empty());
}

#[test]
fn a_response_is_refused() {
    let mut bench = Bench::new();
    let mut buffer = [0; 128];
    let key = credentials("first").password;
    let id = TransactionId([0; 12]);
    let len = write::success(&mut buffer, id, address(1), key.as_bytes()).unwrap();
    assert_eq!(bench.receive(1, &buffer[..len]), None);
}

/// RFC 8445 §7.3.1.1: we are lite and thus controlled; the peer has to switch.
#[test]
fn a_peer_that_wants_to_be_controlled_is_told_of_the_conflict() {
    let mut bench = Bench::new();
    let request = check(&credentials("first"), Role::Controlled(u64::MAX), false);
    let answer = bench.receive(1, &request).unwrap();
    let answer = Message::new_checked(&answer).unwrap();
    assert_eq!((answer.class(), answer.error_code()), (Class::Error, Some(487)));
    assert!(answer.verify_integrity(credentials("first").password.as_bytes()));
    assert!(bench.ports().is_empty());
}

#[test]
fn the_first_valid_address_serves_until_one_is_nominated() {
    let mut bench = Bench::new();
    let own = credentials("first");
    bench.check(1, &own, false);
    bench.check(2, &own, false);
    assert_eq!(bench.selected_port(), Some(1));
    // Regular nomination: a second check of a valid pair.
    bench.check(2, &own, true);
    assert_eq!(bench.selected_port(), Some(2));
    bench.check(1, &own, false);
    assert_eq!(bench.selected_port(), Some(2));
    // The peer moves to another network.
    bench.check(3, &own, true);
    assert_eq!((bench.selected_port(), bench.ports()), (Some(3), vec![1, 2, 3]));
}

#[test]
fn the_least_recently_confirmed_address_makes_room() {
    let mut bench = Bench::new();
    let own = credentials("first");
    for port in 1..=8 {
        bench.check(port, &own, port == 1);
        bench.wait(1);
    }
    bench.check(2, &own, false);
    let generation = bench.agent.generation();
    // Port 1 is the oldest but selected, 2 was confirmed again: 3 goes.
    bench.check(9, &own, false);
    assert_eq!(bench.ports(), [1, 2, 4, 5, 6, 7, 8, 9]);
    assert_ne!(bench.agent.generation(), generation);
    assert_eq!(bench.selected_port(), Some(1));
    for port in 100..1000 {
        bench.check(port, &own, port % 3 == 0);
    }
    assert_eq!(bench.ports().len(), MAX_REMOTES);
    assert!(bench.agent.take_displaced() > 0);
    assert!(bench.agent.is_validated(bench.agent.selected().unwrap()));
}

/// RFC 7675 §5.1.
#[test]
fn consent_expires_thirty_seconds_after_the_last_check() {
    let mut bench = Bench::new();
    let own = credentials("first");
    bench.wait(1000);
    assert!(!bench.agent.expire(bench.now), "before the first check there is nothing to expire");
    bench.check(1, &own, true);
    bench.wait(29);
    assert!(!bench.agent.expire(bench.now));
    bench.check(1, &own, false);
    assert_eq!(bench.agent.next_timeout(), Some(bench.now + CONSENT_TIMEOUT));
    bench.wait(29);
    assert!(!bench.agent.expire(bench.now));
    bench.wait(1);
    assert!(bench.agent.expire(bench.now));
    assert_eq!(bench.selected_port(), None);
}

#[test]
fn another_living_address_takes_over_from_one_that_lost_consent() {
    let mut bench = Bench::new();
    let own = credentials("first");
    bench.check(1, &own, true);
    bench.wait(10);
    bench.check(2, &own, false);
    bench.wait(5);
    bench.check(3, &own, false);
    bench.wait(15);
    assert!(!bench.agent.expire(bench.now));
    assert_eq!((bench.selected_port(), bench.ports()), (Some(3), vec![2, 3]));
}

/// RFC 8445 §9.
#[test]
fn a_restart_takes_effect_with_the_first_check_that_knows_of_it() {
    let mut bench = Bench::new();
    let (first, second, third) =
        (credentials("first"), credentials("second"), credentials("third"));
    bench.check(1, &first, true);
    bench.agent.restart(second.clone());
    assert!(bench.check(1, &first, false).is_some(), "consent goes on meanwhile");
    bench.agent.restart(third.clone());
    assert!(bench.check(1, &first, false).is_some());
    assert!(bench.check(1, &second, false).is_none(), "nobody has used these");
    assert!(bench.check(2, &third, false).is_some());
    assert_eq!(bench.selected_port(), Some(1), "the selected address stays until a nomination");
    assert!(bench.check(1, &first, true).is_none(), "the old ones are gone");
    assert!(bench.check(2, &third, true).is_some());
    assert_eq!(bench.selected_port(), Some(2));
}

#[test]
fn a_check_names_its_transport() {
    let bytes = check(&credentials("first"), CONTROLLING, false);
    assert_eq!(local_ufrag(&bytes), Some(&b"first"[..]));
    for len in 0..bytes.len() {
        assert_eq!(local_ufrag(&bytes[..len]), None);
    }
    let mut response = bytes;
    response[0] = 1;
    assert_eq!(local_ufrag(&response), None);
}

#[test]
fn random_credentials_are_long_and_differ() {
    let (one, two) = (Credentials::random(), Credentials::random());
    assert_eq!((one.ufrag.len(), one.password.len()), (16, 24));
    assert!(one.ufrag != two.ufrag && one.password != two.password);
    let is_ice_char = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    assert!(one.ufrag.chars().chain(one.password.chars()).all(is_ice_char));
    assert!(!format!("{one:?}").contains(&one.password));
}

/// What can happen to an agent.
#[derive(Clone, Debug)]
enum Step {
    Check { port: u16, age: usize, nominate: bool },
    Restart,
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u16, 0..3usize, any::<bool>())
            .prop_map(|(port, age, nominate)| Step::Check { port, age, nominate }),
        1 => Just(Step::Restart),
        2 => (0..20u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    /// Whatever happens: the list is bounded, media goes to a listed address, no deadline stays
    /// behind, and a change of the routes shows in the generation.
    #[test]
    fn an_agent_keeps_its_promises(steps in prop::collection::vec(steps(), 1..80)) {
        let mut bench = Bench::new();
        // Every set of credentials so far, the current one last.
        let mut sets = vec![credentials("first")];
        let routes = |bench: &Bench| {
            (bench.ports(), bench.agent.ufrags().map(str::to_owned).collect::<Vec<_>>())
        };
        for step in steps {
            let (before, generation) = (routes(&bench), bench.agent.generation());
            match step {
                Step::Check { port, age, nominate } => {
                    let set = &sets[sets.len().saturating_sub(1 + age)];
                    let is_valid = bench.agent.ufrags().any(|ufrag| ufrag == set.ufrag);
                    let answer = bench.check(port, set, nominate);
                    prop_assert_eq!(answer.is_some(), is_valid);
                    prop_assert!(!is_valid || bench.agent.is_validated(address(port)));
                    prop_assert!(!(is_valid && nominate) || bench.selected_port() == Some(port));
                }
                Step::Restart => {
                    sets.push(credentials(&format!("restart {}", sets.len())));
                    bench.agent.restart(sets[sets.len() - 1].clone());
                }
                Step::Wait { seconds } => {
                    bench.wait(seconds);
                    let had_any = bench.agent.remotes().next().is_some();
                    let has_expired = bench.agent.expire(bench.now);
                    prop_assert_eq!(has_expired, had_any && bench.ports().is_empty());
                    prop_assert!(bench.agent.next_timeout().is_none_or(|due| due > bench.now));
                }
            }
            prop_assert!(bench.ports().len() <= MAX_REMOTES);
            prop_assert_eq!(bench.selected_port().is_some(), !bench.ports().is_empty());
            prop_assert!(bench.agent.selected().is_none_or(|addr| bench.agent.is_validated(addr)));
            prop_assert!(routes(&bench) == before || bench.agent.generation() != generation);
        }
    }
}

/// A request with these attributes (type and value) and MESSAGE-INTEGRITY, and without FINGERPRINT.
fn bare_request(attributes: &[(u16, &[u8])], key: &[u8]) -> Vec<u8> {
    const INTEGRITY: u16 = 0x0008;
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend(b"123456789012");
    for (kind, value) in attributes {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let body = (bytes.len() - 20 + 24) as u16;
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(&bytes);
    bytes.extend(INTEGRITY.to_be_bytes());
    bytes.extend(20_u16.to_be_bytes());
    bytes.extend(mac.finalize().into_bytes());
    bytes
}

/// Whoever forges the address of a victim must not have us send more than he does.
#[test]
fn no_answer_is_larger_than_what_asked() {
    const USERNAME: u16 = 0x0006;
    const PRIORITY: u16 = 0x0024;
    const CONTROLLED: u16 = 0x8029;
    let local = Credentials { ufrag: "u".to_owned(), ..credentials("first") };
    let name: (u16, &[u8]) = (USERNAME, b"u:");
    let priority: (u16, &[u8]) = (PRIORITY, &[0, 0, 0, 1]);
    let unknown: Vec<(u16, &[u8])> = (0x7000..0x7010).map(|kind| (kind, &[][..])).collect();
    let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 9));
    let mut answers = 0;
    for role in [None, Some((CONTROLLED, &[0; 8][..]))] {
        for count in 0..unknown.len() {
            for priority in [None, Some(priority)] {
                let attributes: Vec<_> = [name]
                    .into_iter()
                    .chain(priority)
                    .chain(role)
                    .chain(unknown[..count].to_vec())
                    .collect();
                let request = bare_request(&attributes, local.password.as_bytes());
                for from in [address(1), v6] {
                    let mut agent = Agent::new(local.clone());
                    let mut answer = [0; MAX_DATAGRAM];
                    let len = agent.receive(Instant::now(), from, &request, &mut answer);
                    let len = len.expect("an authentic check");
                    assert!(len <= request.len(), "{len} bytes for {} to {from}", request.len());
                    answers += usize::from(len > 0);
                }
            }
        }
    }
    assert!(answers > 0);
}
