//! Streams, decoders and random runs.
