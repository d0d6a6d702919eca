mod bottleneck;
mod counters;
mod delays;
mod dice;
mod line;
mod profile;
fn main(){}
