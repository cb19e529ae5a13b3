//! Interrupts: what is done to a node once for a resource id, and the proof that a reboot came.
//!
//! `groundcrew package interrupt` and the stage `Interrupt:NAME` of a run come here. [`types`] and [`proof`] are
//! pure.

pub mod boot_id;
pub(crate) mod going_down;
pub(crate) mod perform;
pub mod proof;
pub(crate) mod systemd_chroot;
pub mod types;

pub use types::Interrupt;
