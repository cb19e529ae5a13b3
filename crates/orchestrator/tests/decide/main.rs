//! `run::decide` against the design, through its public face alone: one file for each kind of input, a table of
//! everything that is refused, and random orders of everything against a plain model.

mod bench;
mod claims;
mod deadlines;
mod directives;
mod drains;
mod holds;
mod identity;
mod in_service;
mod intents;
mod model;
mod model_ops;
mod model_run;
mod orders;
mod protocol_1;
mod refused;
mod restore;
mod results;
mod runtime;
mod shutdowns;
mod standings;
mod tokens;
mod wipes;
