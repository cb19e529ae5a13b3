//! The marker whose presence asks a running agent to quiesce: `.drain_request.json` in its home.
//!
//! Whoever is about to do something disruptive to a machine writes the marker ([`write`]); the agent reads it
//! ([`read`]), starts nothing new, and says when nothing is active any more. Both go through this module, so that
//! they cannot disagree. Nothing here starts a thread or waits for more than the marker's lock.
//!
//! ```text
//!   nothing there ── begin ──▶ held by P ── begin by Q ──▶ held by P and Q
//!        ▲                       │  cancel by P, the last                │ cancel by P: held by Q
//!        └───────────────────────┴── plain cancel, removal by hand ──────┘
//!
//!   reads as absent besides: another boot's epoch in it; older than the greatest age
//! ```
//!
//! The fields are those of the drain contract: `action`, `requested_at`, `principal`, `epoch`,
//! `suppress_notification`. `holders` is ours, and additive: who asks, each since when, so that two who ask do not take
//! off each other's drain. A marker without it has one holder, its principal. Reading never fails: what cannot be
//! understood drains, because a drain that was asked for and ignored costs more than one too many. What ends a drain that
//! nobody takes off is the epoch (the restart that it was for) and the greatest age (its writer is no more).

mod principal;
pub mod read;
pub mod sighting;
pub mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use principal::{BadPrincipal, Principal};

/// The marker's name in the agent's home.
pub const FILE_NAME: &str = ".drain_request.json";

/// A drain that nobody renews ends by itself after this, unless the agent is told otherwise: longer than what is in
/// flight on most machines takes, and far from the days for which a forgotten marker has kept machines idle.
pub const MAX_AGE_DEFAULT: Duration = Duration::from_secs(3600);

/// A marker with all its holders takes a tenth of this. One that is larger is none that anybody here wrote.
pub const BYTES_MAX: u64 = 64 * 1024;

/// Askers at one time: a person, an updater, a scheduler, the orchestrator, and room.
pub const HOLDERS_MAX: usize = 64;

/// Where a home's marker is.
pub fn path_in(home: &Path) -> PathBuf {
    home.join(FILE_NAME)
}
