//! The whole walk in one process, deterministic by its seed.
//!
//! The agent's control loop and the orchestrator's `decide` are the real ones. Around them stands a small world:
//! a network that loses, doubles, delays and reorders; homes that survive a crash or are lost with the machine;
//! an orchestrator that is killed, stopped, backed up and restored; operators who decide; people and programs who ask for
//! drains, and forget them. After every step the world checks what must hold whatever happens, and at the end that the run
//! has ended.
//!
//! What is not here: files, sockets and SQLite. They have tests of their own, with real ones. Spools and drain markers are
//! real ones, in memory.

pub mod agent;
pub mod drains;
pub mod folder;
pub mod hooks;
pub mod logs;
pub mod random;
pub mod server;
pub mod tally;
pub mod world;
