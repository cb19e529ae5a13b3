//! Runs: where they stand ([`state`]) and the one place that decides where they go ([`decide`]).

pub mod decide;
pub mod state;
