//! What the tests over agent and orchestrator share: the model of the whole walk, and the built binaries.

pub mod harness;
pub mod model;
