//! The agent on a node: what `groundcrew` does, as a library, so that tests can drive its parts.

pub mod control;
pub mod errors;
mod files;
pub mod hold;
pub mod home;
pub mod io_thread;
pub mod outbox;
pub mod points;
pub mod power;
pub mod settings;
pub mod probe;
pub mod process;
pub mod vet;
