//! Our wire formats and ciphers against independent implementations: what one makes, the other
//! understands.

mod srtp_oracle;
mod wire_oracles;
