//! Feedback that nobody honest would send.
