//! A peer that does its handshake with an engine, where others of the simulation have preset keys.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use shardcast::id::TransportId;
use shardcast::room::spec::Command;
use shardcast::transport::Transport;
use shardcast::transport::dtls::{Fingerprint, Identity, Peer, Role};
use shardcast::transport::ice::Credentials;
use shardcast::wire::MAX_DATAGRAM;
use shardcast::wire::stun::TransactionId;
use shardcast::wire::stun::write::{self, BindingRequest, request};
use uuid::Uuid;

use crate::world::{IDENTITY, World};

static OWN_IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("a certificate")));

/// Round trips after which a handshake without loss is over.
const ROUND_TRIPS: usize = 10;

pub struct Newcomer {
    pub id: TransportId,
    pub address: SocketAddr,
    server: Credentials,
    client: Transport,
}

impl Newcomer {
    /// Asks shard 0 for a transport, and says hello as soon as it may.
    pub fn join(world: &mut World) -> Self {
        let id = TransportId(Uuid::from_u128(77));
        let credentials =
            |ufrag: &str| Credentials { ufrag: ufrag.to_owned(), password: "p".repeat(22) };
        let (server, own) = (credentials("newcomers-server"), credentials("newcomer"));
        let ice = server.clone();
        world.command(0, Command::AddTransport { id, ice });
        let mut client = Transport::new(own.clone(), OWN_IDENTITY.clone());
        let answered = client.receive_stun(
            world.now,
            ([10, 0, 0, 1], 1).into(),
            &check(&own),
            &mut [0; MAX_DATAGRAM],
        );
        assert!(answered.is_ok());
        let fingerprints = vec![IDENTITY.fingerprint()];
        client.connect(world.now, Peer { role: Role::Active, fingerprints });
        Self { id, address: ([10, 0, 0, 7], 7777).into(), server, client }
    }

    /// Signaling tells the server whom it will talk to.
    pub fn connect(&self, world: &mut World, fingerprints: Vec<Fingerprint>) {
        let peer = Peer { role: Role::Passive, fingerprints };
        world.command(0, Command::ConnectTransport { id: self.id, peer });
    }

    /// The true fingerprint.
    pub fn fingerprint() -> Fingerprint {
        OWN_IDENTITY.fingerprint()
    }

    /// An authentic check, from our address.
    pub fn check(&self, world: &mut World) {
        world.inject(0, self.address, &check(&self.server));
    }

    /// Exchanges what there is to exchange. Whether we have keys.
    pub fn handshake(&mut self, world: &mut World) -> bool {
        let mut buffer = [0; MAX_DATAGRAM];
        for _ in 0..ROUND_TRIPS {
            while let Some(len) = self.client.poll_transmit(&mut buffer) {
                world.inject(0, self.address, &buffer[..len]);
            }
            for (to, datagram) in std::mem::take(&mut world.to_others) {
                assert_eq!(to, self.address);
                // Answers to our checks are among them.
                let _ = self.client.receive_dtls(world.now, ([10, 0, 0, 1], 1).into(), &datagram);
            }
        }
        self.client.is_connected()
    }
}

fn check(to: &Credentials) -> Vec<u8> {
    let username = format!("{}:peer", to.ufrag);
    let check = BindingRequest {
        transaction_id: TransactionId([7; 12]),
        username: username.as_bytes(),
        priority: 1,
        role: write::Role::Controlling(1),
        use_candidate: true,
    };
    let mut buffer = [0; 256];
    let len = request(&mut buffer, &check, to.password.as_bytes()).expect("it fits");
    buffer[..len].to_vec()
}
