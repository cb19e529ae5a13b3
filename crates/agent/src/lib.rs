//! The agent: what runs on every node.

pub mod process;
