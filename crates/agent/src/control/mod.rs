//! The control loop: what the agent does next, decided purely from what is on disk and what was said.
//!
//! [`core`] is a state machine without clock or I/O: events go in, actions come out, in the order in which they
//! must take effect. [`memory`] is what it keeps on disk. A driver performs the actions and brings back what came
//! of them; the agent's own is [`crate::supervise`], and the model test has another, with a network that lies.

pub mod core;
pub mod failure;
pub mod hooks;
pub mod memory;
pub mod sight;
