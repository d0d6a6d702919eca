//! Our wire formats and ciphers against independent implementations.

mod wire_oracles;
