//! Whatever arrives, the engine counts it and goes on, and other peers notice nothing.
