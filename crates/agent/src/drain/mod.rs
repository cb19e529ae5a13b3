//! The drain marker as the running agent sees it: who watches it, and who changes it for the orchestrator.
//!
//! ```text
//!   .drain_request.json ──▶ watcher (a thread: each second, and when asked) ──▶ control loop: starts nothing new
//! ```
//!
//! The rules of the marker are [`groundcrew_durable::drain_marker`]'s; what a drain means for the walk is the control
//! loop's. A disk that hangs holds up the watcher's thread and nobody else.

mod watcher;

pub use watcher::{Change, Marker, Say, Watcher};
