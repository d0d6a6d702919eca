//! ICE checks to the real binary's media port, written with the crate `stun`.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stun::agent::TransactionId;
use stun::attributes::{ATTR_PRIORITY, ATTR_SOFTWARE, ATTR_USERNAME};
use stun::error_code::{CODE_BAD_REQUEST, ErrorCodeAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, Message, MessageType, Setter,
};
use stun::textattrs::Username;

use crate::client::Peer;
use crate::metrics::scrape_until;
use crate::process::{PATIENCE, Server};

/// RFC 8445 §7.1.1: every check has a PRIORITY. One without is authentic all the same, so it is told what is wrong,
/// and it validates nothing.
#[tokio::test]
async fn a_check_without_priority_is_a_bad_request() {
    let server = Server::start(&[]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    let transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = transport["iceCandidates"][0]["port"].as_u64().unwrap() as u16;
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();

    let (kind, answer) = ask(&socket, &transport, false);
    assert_eq!(kind, BINDING_ERROR);
    let mut error = ErrorCodeAttribute::default();
    error.get_from(&answer).unwrap();
    assert!(error.code == CODE_BAD_REQUEST, "{error}");
    // Whoever sent it has no path yet: what else comes from there is a stranger's.
    socket.send(&[0x80; 40]).unwrap();
    let stranger = [("shard", "0"), ("stage", "engine"), ("reason", "unknownAddress")];
    scrape_until(server.http, |seen| seen.value("shardcast_drops_total", &stranger) >= 1.0).await;

    assert_eq!(ask(&socket, &transport, true).0, BINDING_SUCCESS);
}

/// The answer to a check, which is authentic.
fn ask(socket: &UdpSocket, transport: &Value, with_priority: bool) -> (MessageType, Message) {
    let ice = |field: &str| transport["iceParameters"][field].as_str().unwrap().to_owned();
    let integrity = MessageIntegrity::new_short_term_integrity(ice("password"));
    let mut check = Message::new();
    check.transaction_id = TransactionId::new();
    check.write_transaction_id();
    check.build(&[Box::new(BINDING_REQUEST)]).unwrap();
    let name = format!("{}:peer", ice("usernameFragment"));
    Username::new(ATTR_USERNAME, name).add_to(&mut check).unwrap();
    // An answer is never longer than what it answers.
    check.add(ATTR_SOFTWARE, &[b'x'; 64]);
    if with_priority {
        check.add(ATTR_PRIORITY, &1_u32.to_be_bytes());
    }
    integrity.add_to(&mut check).unwrap();
    FINGERPRINT.add_to(&mut check).unwrap();
    // As clients do, again and again: the first may come before the shard knows the transport.
    let (mut buffer, deadline) = ([0; 1500], Instant::now() + PATIENCE);
    let len = loop {
        socket.send(&check.raw).unwrap();
        match socket.recv(&mut buffer) {
            Ok(len) if buffer[8..20] == check.raw[8..20] => break len,
            // Nothing, or one more answer to an earlier check.
            _ => {}
        }
        assert!(Instant::now() < deadline, "no answer");
    };
    let mut answer = Message::new();
    answer.unmarshal_binary(&buffer[..len]).unwrap();
    integrity.check(&mut answer).expect("its integrity");
    (answer.typ, answer)
}
