//! The package agent: what `groundcrew package MODE ROOT_MOUNT COPY_DIR` does on a node.
//!
//! One plain process without tokio, in the reference agent's place: same arguments, same environment, same words, same
//! files. `cli::package` is its main; [`controller`] does a mode of a package, [`step`] one step. What an operator, an
//! environment and a package say is parsed by pure parts; every file beneath the root mount is reached through
//! [`rooted`].

pub mod arguments;
pub mod banner;
pub mod config;
pub(crate) mod controller;
pub mod copying;
mod delivery;
pub mod flags;
pub mod history;
pub mod logs;
pub mod places;
pub mod pyrepr;
mod quoted;
pub mod resource_id;
pub mod rooted;
pub(crate) mod session;
pub mod settings;
pub(crate) mod step;
pub(crate) mod turns;
