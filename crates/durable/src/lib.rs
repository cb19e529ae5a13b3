//! Files that outlive a crash.
//!
//! Everything that another process or a later boot will read goes through this crate: whole-file writes
//! ([`whole`]), JSON updates that keep what they do not know ([`json`]), an agent's word of itself ([`agent_info`]),
//! append-only records ([`records`]), the lock of a home ([`lock`]), the identity of this boot ([`epoch`]) and the
//! drain marker ([`drain_marker`]). Both binaries use it. It knows
//! nothing of runs or stages, starts no thread and never touches the network. Every call blocks, for as long
//! as the disk takes and no longer than its stated limits; a caller with an event loop uses a thread of its own.
//!
//! [`fault`] lets tests kill a process between any two steps of a write.

pub mod agent_info;
pub mod drain_marker;
pub mod epoch;
mod error;
pub mod fault;
mod folder;
mod found;
pub mod json;
pub mod lock;
pub mod points;
pub mod records;
pub mod whole;

pub use error::{Error, Result};
pub use folder::kind_words;
