//! Our wire formats and ciphers against independent implementations.

mod srtp_oracle;
