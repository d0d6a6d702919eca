//! Our wire formats, ciphers and handshakes against independent implementations: what one makes, the
//! other understands.

mod dtls_peer;
mod srtp_oracle;
mod stun_oracle;
mod wire_oracles;
