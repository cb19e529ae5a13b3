//! Kubernetes: the pods of agents, watched. It reads pods and changes nothing in a cluster.
//!
//! ```text
//!   observe   lists and watches pods, again and again ──▶ agents::pods ──▶ the task `agents`
//!   decide    what a pod says of its agent: pure
//! ```

pub mod decide;
pub mod observe;
