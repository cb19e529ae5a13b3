//! The agent on a node: what `groundcrew` does, as a library, so that tests can drive its parts.

pub mod client;
pub mod errors;
mod files;
pub mod forward;
pub mod home;
pub mod io_thread;
pub mod outbox;
pub mod points;
pub mod settings;
pub mod spool;
