//! The agent: what runs on every node.

pub mod probe;
pub mod process;
