//! The relay as a program: real sockets on loopback, commands, figures, its end.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a datagram may take that nothing but the machine holds up.
const PATIENCE: Duration = Duration::from_secs(10);

struct Relay {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Relay {
    fn start(target: SocketAddr, flags: &[&str]) -> Self {
        let map = format!("127.0.0.1:0={target}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_impair"))
            .args(["--json", "--map", &map])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let commands = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = next(&mut answers);
        let address =
            first["maps"][0]["listen"].as_str().expect("an address").parse().expect("one");
        Self { child, commands, answers, address }
    }

    fn command(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").expect("it reads");
        next(&mut self.answers)
    }

    fn stats(&mut self) -> Value {
        self.command("stats")["stats"].take()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Gone already if the test went well.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn next(answers: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = answers.next().expect("an answer").expect("text");
    serde_json::from_str(&line).expect("JSON")
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (size, from) = socket.recv_from(&mut buffer).expect("a datagram arrives");
    (buffer[..size].to_vec(), from)
}

#[test]
fn clients_have_addresses_of_their_own_and_get_their_own_answers() {
    let server = socket();
    let mut relay = Relay::start(server.local_addr().expect("bound"), &[]);
    let clients = [socket(), socket()];
    let mut seen = Vec::new();
    for (name, client) in [b"a", b"b"].into_iter().zip(&clients) {
        client.send_to(name, relay.address).expect("sent");
        let (asked, from) = receive(&server);
        assert_eq!(asked, name);
        seen.push(from);
    }
    assert_ne!(seen[0], seen[1]);
    // The other way round: the answers must find back by address alone.
    for (index, text) in [(1, b"for b"), (0, b"for a")] {
        server.send_to(text, seen[index]).expect("sent");
        let (answer, from) = receive(&clients[index]);
        assert_eq!((answer, from), (text.to_vec(), relay.address), "from where it was asked");
    }
    let stats = relay.stats();
    assert_eq!(stats["flows"], 2);
    assert_eq!(stats["total"]["up"]["delivered"]["packets"], 2);
    assert_eq!(stats["total"]["down"]["delivered"]["bytes"], 10);
}

#[test]
fn commands_change_a_direction_at_once() {
    let server = socket();
    let mut relay = Relay::start(server.local_addr().expect("bound"), &["--up", "delay=50ms"]);
    let client = socket();

    let sent = Instant::now();
    client.send_to(b"late", relay.address).expect("sent");
    let (_, from) = receive(&server);
    assert!(sent.elapsed() >= Duration::from_millis(50), "never earlier than its delay");

    assert_eq!(relay.command("down loss=100%")["ok"], true);
    server.send_to(b"lost", from).expect("sent");
    // Datagrams of one socket keep their order, so what follows arrives only after the lost one is decided.
    let deadline = Instant::now() + PATIENCE;
    while relay.stats()["total"]["down"]["dropped"]["loss"]["packets"] != 1 {
        assert!(Instant::now() < deadline, "the loss is counted");
    }
    assert_eq!(relay.command("down loss=0%")["ok"], true);
    server.send_to(b"found", from).expect("sent");
    assert_eq!(receive(&client).0, b"found");
}

#[test]
fn a_timeline_begins_with_the_first_datagram() {
    let server = socket();
    let flags = ["--up", "loss=100%", "--at", "100ms up loss=0%"];
    let relay = Relay::start(server.local_addr().expect("bound"), &flags);
    let client = socket();
    let begin = Instant::now();
    server.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
    let mut buffer = [0; 16];
    loop {
        client.send_to(b"again", relay.address).expect("sent");
        if server.recv_from(&mut buffer).is_ok() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the loss ends");
    }
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

#[test]
fn mistakes_are_answered_and_change_nothing() {
    let server = socket();
    let mut relay = Relay::start(server.local_addr().expect("bound"), &[]);
    for mistake in ["sideways loss=1%", "down rate=fast", "down rate", "stat"] {
        let answer = relay.command(mistake);
        assert!(
            answer["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{mistake}: {answer}"
        );
    }
    let client = socket();
    client.send_to(b"still here", relay.address).expect("sent");
    assert_eq!(receive(&server).0, b"still here");
}

#[test]
fn it_ends_with_its_figures_and_refuses_nonsense_at_the_start() {
    let server = socket();
    let mut relay = Relay::start(server.local_addr().expect("bound"), &[]);
    let last = relay.command("quit");
    assert_eq!(last["last"], true);
    assert!(relay.child.wait().expect("it ends").success());

    for flags in
        [&["--map", "nowhere"][..], &["--map", "127.0.0.1:0=127.0.0.1:9", "--up", "rate=x"]]
    {
        let ended =
            Command::new(env!("CARGO_BIN_EXE_impair")).args(flags).output().expect("it runs");
        assert!(!ended.status.success(), "{flags:?}");
    }
}
