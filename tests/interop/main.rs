//! Our formats against independent implementations of them.

mod wire_oracles;
