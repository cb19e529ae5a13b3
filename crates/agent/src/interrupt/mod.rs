//! Interrupts: what is done to a node once for a resource id, and the proof that a reboot came.
//!
//! `groundcrew package interrupt` and the stage `Interrupt:NAME` of a run come here. [`types`] and [`proof`] are
//! pure.

pub mod boot_id;
pub mod proof;
pub mod types;

pub use types::Interrupt;
