//! The agent on a node: what `groundcrew` does, as a library, so that tests can drive its parts.

pub mod artifacts;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod clock;
pub mod console;
pub mod control;
pub mod errors;
mod files;
pub mod forward;
pub mod heartbeat;
pub mod hold;
pub mod home;
pub mod interrupt;
pub mod io_thread;
pub mod outbox;
pub mod package;
pub mod points;
pub mod power;
pub mod probe;
pub mod process;
pub mod sensors;
pub mod settings;
pub mod spool;
pub mod stamp;
pub mod supervise;
pub mod vet;
