//! Who speaks.
