//! The package agent: what `groundcrew package MODE ROOT_MOUNT COPY_DIR` does on a node.
//!
//! The parts here are pure: they parse what an operator, an environment and a package say, and write what the
//! reference agent would have said. None of them opens a file, reads the environment or prints.

pub mod arguments;
pub mod banner;
pub mod config;
pub mod pyrepr;
mod quoted;
pub mod resource_id;
pub mod settings;
