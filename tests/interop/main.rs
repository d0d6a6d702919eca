//! Our wire formats and ciphers against independent implementations.

mod dtls_peer;
mod srtp_oracle;
mod stun_oracle;
