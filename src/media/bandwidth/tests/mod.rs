//! The estimator as a whole: behind a simulated line under virtual time, and fed with nonsense.

mod call;
mod figures;
mod hostile;
mod line;
