//! The words that agent, orchestrator and operators' tools share: serde types, names of stages and
//! states, limits, and how a check is judged.
//!
//! Both binaries depend on this crate, so that they judge alike and cannot disagree about a shape.
//! It does no I/O, reads no clock and draws no random number.

pub mod agent_info;
pub mod check;
pub mod check_names;
pub mod drain;
pub mod hold;
pub mod ids;
pub mod inventory;
pub mod limits;
pub mod operator;
pub mod order;
pub mod plan;
pub mod profile;
pub mod report;
pub mod runtime;
pub mod spec_diff;
pub mod stage;
pub mod time;
pub mod wire;

mod blank;
mod text_enum;

/// The protocol that this version speaks.
pub const PROTOCOL: u32 = 2;

/// The oldest protocol that the orchestrator still answers: the loop without claim numbers, attempts
/// and streams, in which the boot token serves for every call.
pub const PROTOCOL_OLDEST: u32 = 1;
