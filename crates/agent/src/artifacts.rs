//! Raw output of tools, kept until the orchestrator has it: `artifacts/N.bin` and, written after it, `N.json`,
//! which says what it is.
//!
//! The supervisor keeps a stage's artifacts before the stage's outcome; [`Uploader`] sends them, oldest first,
//! until each is acknowledged or refused for good, also those that an earlier agent left. Bounded: past
//! [`BYTES_MAX`] nothing more is kept, and that is said.

mod store;
mod upload;

pub use store::{BYTES_MAX, Known, Store};
pub use upload::Uploader;
