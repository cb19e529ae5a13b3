//! The agent: on every node, claims its run and walks it. The binary is `groundcrew`.

pub mod control;
pub mod probe;
pub mod process;
pub mod vet;
