//! The drain as the running agent sees it: who watches its marker, who changes it for others, and who may ask on this machine.
//!
//! ```text
//!   .drain_request.json ──▶ watcher (a thread: each second, and when asked) ──▶ control loop: starts nothing new
//!                              ▲                                                    │ where it stands
//!   agent.sock, loopback HTTP ─┴──────────────── endpoint ◀─────────────────────────┘
//! ```
//!
//! The rules of the marker are [`groundcrew_durable::drain_marker`]'s; what a drain means for the walk is the control
//! loop's. A disk that hangs holds up the watcher's thread and nobody else.

mod endpoint;
mod http;
mod secret;
pub mod socket;
pub mod status;
mod watcher;

pub use endpoint::Endpoint;
pub use secret::{SecretError, SecretFile};
pub use watcher::{Change, Marker, Say, Watcher};
