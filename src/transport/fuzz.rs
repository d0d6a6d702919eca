//! Bodies of the fuzz targets of what comes before there are keys: sorting, and the handshake behind its gate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};

use super::dtls::{self, Identity, Peer, Role};
use super::srtp::MAX_RTP_OVERHEAD;
use super::{CloseReason, Event, Rejected, Transport, ice};
use crate::wire::MAX_DATAGRAM;
use crate::wire::demux::{Kind, classify};
use crate::wire::fuzz::Bytes;
use crate::wire::rtcp::Compound;
use crate::wire::rtp::Header;
use crate::wire::seq::SeqNo;
use crate::wire::stun::TransactionId;
use crate::wire::stun::write::{self, BindingRequest};

/// Sorts a datagram, and shows it to every parser.
///
/// # Panics
/// When one takes what was sorted elsewhere.
pub fn demux(data: &[u8]) {
    let kind = classify(data);
    assert_eq!(classify(&data[..data.len().min(2)]), kind, "two bytes decide");
    assert!(ice::local_ufrag(data).is_none() || kind == Kind::Stun);
    assert!(!dtls::is_well_formed(data) || kind == Kind::Dtls);
    let is_rtp = matches!(kind, Kind::Rtp | Kind::Rtcp);
    assert!(Header::parse(data).is_err() || is_rtp);
    assert!(Compound::parse(data).is_err() || is_rtp);
}

/// Making a certificate takes longer than a run: the server's, and the client's.
static IDENTITIES: LazyLock<[Arc<Identity>; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Arc::new(Identity::generate().expect("a certificate"))));

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2);
const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3);
/// Datagrams that one input may cause: our largest flight, and copies of it.
const MAX_ANSWERS: usize = 10;
/// Operations of one run, so that one run does not hold the fuzzer up: a handshake needs about ten.
const MAX_STEPS: usize = 200;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any datagram, from the checked address or from a stranger's.
    Datagram {
        is_known: bool,
        bytes: Bytes,
    },
    /// One handshake record in plaintext that says what it likes about its fragment.
    Fragment {
        kind: u8,
        record: u8,
        message: u8,
        len: u16,
        offset: u16,
        claimed: Option<u16>,
        body: Bytes,
    },
    /// The honest client's next datagram: as it is, changed, cut, or twice.
    Client {
        change: Option<(u16, u8)>,
        cut: Option<u16>,
        is_twice: bool,
    },
    /// The server's next datagram reaches the client.
    Server,
    /// A check, with the right password or another.
    Check {
        is_right: bool,
    },
    /// Signaling tells the fingerprint: the client's, or another's.
    Tell {
        is_right: bool,
    },
    Wait(u16),
    RestartIce,
    Close,
}

/// A server's transport, the honest client, and what signaling said.
struct Scene {
    now: Instant,
    server: Transport,
    credentials: ice::Credentials,
    client: Transport,
    /// What left the server and has not reached the client, oldest first.
    flying: Vec<Vec<u8>>,
    was_checked: bool,
    /// Whether the fingerprint that counts, the first one, was the client's.
    told: Option<bool>,
    is_connected: bool,
    has_died: bool,
}

/// Takes `data` as what reaches a transport of the server from `start` on.
///
/// # Panics
/// When a stranger gets an answer, when one datagram causes many, when a peer connects whose fingerprint was
/// not told, or when both sides are connected with different keys.
pub fn dtls(data: &[u8], start: Instant) {
    let mut input = Unstructured::new(data);
    let Ok(is_passive) = input.arbitrary::<bool>() else { return };
    let mut scene = Scene::new(start, is_passive);
    let steps = input.arbitrary_iter::<Step>().into_iter().flatten().map_while(Result::ok);
    steps.take(MAX_STEPS).for_each(|step| scene.take(step, is_passive));
    scene.check_keys();
}

impl Scene {
    fn new(now: Instant, server_is_passive: bool) -> Self {
        let credentials =
            |name: &str| ice::Credentials { ufrag: name.to_owned(), password: "p".repeat(22) };
        let [own, theirs] = &*IDENTITIES;
        let mut client = Transport::new(credentials("client"), theirs.clone());
        let mut answer = [0; MAX_DATAGRAM];
        let checked = client.receive_stun(now, SERVER, &check("client", "p"), &mut answer);
        assert!(checked.is_ok_and(|len| len > 0));
        let role = if server_is_passive { Role::Active } else { Role::Passive };
        client.connect(now, Peer { role, fingerprints: vec![own.fingerprint()] });
        let credentials = credentials("server");
        Self {
            now,
            server: Transport::new(credentials.clone(), own.clone()),
            credentials,
            client,
            flying: Vec::new(),
            was_checked: false,
            told: None,
            is_connected: false,
            has_died: false,
        }
    }

    fn take(&mut self, step: Step, is_passive: bool) {
        match step {
            Step::Datagram { is_known, bytes } => {
                self.receive(if is_known { CLIENT } else { STRANGER }, &bytes.0);
            }
            Step::Fragment { kind, record, message, len, offset, claimed, body } => {
                let fragment = fragment(kind, record, message, (len, offset, claimed), &body.0);
                self.receive(CLIENT, &fragment);
            }
            Step::Client { change, cut, is_twice } => self.send_as_client(change, cut, is_twice),
            Step::Server if !self.flying.is_empty() => {
                let datagram = self.flying.remove(0);
                let _ = self.client.receive_dtls(self.now, SERVER, &datagram);
            }
            Step::Server => {}
            Step::Check { is_right } => self.check(is_right),
            Step::Tell { is_right } => self.tell(is_right, is_passive),
            Step::Wait(millis) => self.wait(Duration::from_millis(u64::from(millis))),
            Step::RestartIce => self.server.restart_ice(self.credentials.clone()),
            Step::Close => {
                self.server.close();
                self.has_died = true;
            }
        }
        self.settle();
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let refused = self.server.receive_dtls(self.now, from, datagram);
        if self.has_died {
            assert_eq!(refused, Err(Rejected::Closed));
        } else if from == STRANGER || !self.was_checked {
            assert_eq!(refused, Err(Rejected::EarlyDtls));
        } else if !dtls::is_well_formed(datagram) {
            assert_eq!(refused, Err(Rejected::BadDtls));
        }
    }

    fn send_as_client(&mut self, change: Option<(u16, u8)>, cut: Option<u16>, is_twice: bool) {
        let mut buffer = [0; MAX_DATAGRAM];
        let Some(len) = self.client.poll_transmit(&mut buffer) else { return };
        let datagram = &mut buffer[..len];
        if let Some((at, bits)) = change {
            datagram[usize::from(at) % len] ^= bits;
        }
        let datagram = &datagram[..cut.map_or(len, |cut| usize::from(cut) % len)];
        self.receive(CLIENT, datagram);
        if is_twice {
            self.settle();
            self.receive(CLIENT, datagram);
        }
    }

    fn check(&mut self, is_right: bool) {
        let check = check("server", if is_right { "p" } else { "q" });
        let mut answer = [0; MAX_DATAGRAM];
        match self.server.receive_stun(self.now, CLIENT, &check, &mut answer) {
            Ok(len) => {
                assert!(is_right && !self.has_died && len <= check.len(), "no amplifier");
                self.was_checked = true;
            }
            Err(rejected) => assert!(!is_right || rejected == Rejected::Closed),
        }
    }

    fn tell(&mut self, is_right: bool, is_passive: bool) {
        let [own, theirs] = &*IDENTITIES;
        let fingerprint = if is_right { theirs } else { own }.fingerprint();
        let role = if is_passive { Role::Passive } else { Role::Active };
        self.server.connect(self.now, Peer { role, fingerprints: vec![fingerprint] });
        self.told.get_or_insert(is_right);
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..1000 {
            let dues = [&self.server, &self.client].map(Transport::next_timeout);
            let Some(due) = dues.into_iter().flatten().min().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            self.settle();
        }
        panic!("a transport wants to be woken without end");
    }

    /// What the server sends and tells after each input.
    fn settle(&mut self) {
        let mut buffer = [0; MAX_DATAGRAM];
        let mut answers = 0;
        while let Some(len) = self.server.poll_transmit(&mut buffer) {
            assert!(self.was_checked && self.server.remote() == Some(CLIENT) && len <= dtls::MTU);
            answers += 1;
            self.flying.push(buffer[..len].to_vec());
        }
        assert!(answers <= MAX_ANSWERS, "{answers} datagrams at once");
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Connected => {
                    assert!(self.told == Some(true) && self.was_checked);
                    self.is_connected = true;
                }
                // Before there are keys, an alert in plaintext may end it all (RFC 6347 §4.1.2.7).
                Event::Closed(reason) => {
                    let is_forged = self.is_connected && reason == CloseReason::DtlsClosed;
                    assert!(!is_forged, "the client never says goodbye");
                    self.has_died = true;
                }
            }
        }
        self.flying.truncate(4 * MAX_ANSWERS);
    }

    /// What one side seals, the other opens.
    fn check_keys(&mut self) {
        if !self.server.is_connected() || !self.client.is_connected() {
            return;
        }
        let mut packet = [0; 20 + MAX_RTP_OVERHEAD];
        packet[..4].copy_from_slice(&[0x80, 96, 0, 7]);
        let len = self.client.seal_rtp(SeqNo(7), &mut packet, 20).expect("room for the tag");
        let opened = self.server.open_rtp(&mut packet[..len]);
        assert!(opened.is_ok_and(|opened| opened.seq == SeqNo(7)), "both have the same keys");
    }
}

/// A check for the transport with this ufrag, whose password is 22 times `letter`.
fn check(ufrag: &str, letter: &str) -> Vec<u8> {
    let username = format!("{ufrag}:peer");
    let request = BindingRequest {
        transaction_id: TransactionId([7; 12]),
        username: username.as_bytes(),
        priority: 1,
        role: write::Role::Controlling(1),
        use_candidate: true,
    };
    let mut buffer = [0; 256];
    let len = write::request(&mut buffer, &request, letter.repeat(22).as_bytes());
    buffer[..len.expect("it fits")].to_vec()
}

/// A record with one handshake fragment (RFC 6347 §4.2.2). Without a claim, it says its true length.
fn fragment(
    kind: u8,
    record: u8,
    message: u8,
    (len, offset, claimed): (u16, u16, Option<u16>),
    body: &[u8],
) -> Vec<u8> {
    let uint24 = |value: u16| [0, (value >> 8) as u8, value as u8];
    let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, record];
    bytes.extend((12 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend(uint24(len));
    bytes.extend([0, message]);
    bytes.extend(uint24(offset));
    bytes.extend(uint24(claimed.unwrap_or(body.len() as u16)));
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    use super::*;
    use crate::wire::fuzz::seeds;

    /// The honest way is open, or the target would never see keys.
    #[test]
    fn an_honest_handshake_connects() {
        for is_passive in [true, false] {
            let mut scene = Scene::new(Instant::now(), is_passive);
            scene.take(Step::Check { is_right: true }, is_passive);
            scene.take(Step::Tell { is_right: true }, is_passive);
            for _ in 0..20 {
                let client = Step::Client { change: None, cut: None, is_twice: false };
                scene.take(client, is_passive);
                scene.take(Step::Server, is_passive);
            }
            assert!(scene.server.is_connected() && scene.client.is_connected());
            scene.check_keys();
        }
    }

    #[test]
    fn damaged_datagrams_are_never_mistaken() {
        seeds::sweep("demux", 8, demux);
    }

    #[test]
    fn the_seeds_break_nothing() {
        seeds::of("dtls").iter().for_each(|seed| dtls(seed, Instant::now()));
    }

    #[test]
    fn random_bytes_break_nothing() {
        let (mut rng, start) = (StdRng::seed_from_u64(5), Instant::now());
        let mut data = [0; 600];
        for len in 0..600 {
            rng.fill_bytes(&mut data);
            dtls(&data[..len], start);
            demux(&data[..len]);
        }
    }
}
