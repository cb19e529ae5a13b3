//! The agent: on every node, claims its run and walks it. The binary is `groundcrew`.

pub mod control;
