//! What the tests over agent and orchestrator share: the model of the whole walk, the built binaries, and virtual machines.

pub mod guest;
pub mod harness;
pub mod model;
