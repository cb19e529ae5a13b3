//! The orchestrator: holds runs, answers agents and operators. The binary is `groundcrewd`.

pub mod live;
pub mod run;
pub mod store;
