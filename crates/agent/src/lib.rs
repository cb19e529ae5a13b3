//! The agent on a node: what `groundcrew` does, as a library, so that tests can drive its parts.

pub mod settings;
