//! The estimator as a whole.
