//! Readers of /proc, /sys and SMBIOS. They look at the machine and say what it says; nothing here judges.
//!
//! Every reader takes a [`Root`], so that a folder can stand in for the machine. Every read is bounded, and no
//! content makes a reader panic. A source that is not there is no error: the machine does not have it. A source that
//! is there and cannot be read goes into [`Unreads`].

pub mod cpu;
pub mod disks;
pub mod dmi;
pub mod gpus;
pub mod hwmon;
pub mod inventory;
pub mod ip;
pub mod memory;
pub mod nics;
mod root;
pub mod smbios;

#[cfg(test)]
pub(crate) mod fixture;

pub use root::{Root, Unreads};
