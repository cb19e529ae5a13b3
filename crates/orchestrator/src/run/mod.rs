//! Runs: where they stand ([`state`]), the one place that decides where they go ([`decide`]), and the one that lands
//! it ([`advance`]).

pub mod advance;
pub mod decide;
pub mod notice;
pub mod runtime;
pub mod state;
pub mod wait;
