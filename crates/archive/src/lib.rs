//! Reads the archive of a package: tar, plain or packed with gzip or zstd.
//!
//! The orchestrator reads it when it is uploaded, and the agent when it unpacks it, by the same rules ([`Tree`]): whatever an
//! archive holds stays below one folder, and is bounded in number, size, depth and the length of its names. Nothing here
//! writes anything: [`read`] hands each entry that the rules take to a [`Sink`].

mod error;
mod meter;
mod read;
mod tree;

pub use error::Error;
pub use read::{Content, Sink, read};
pub use tree::{
    DEPTH_MAX, ENTRIES_MAX, Facts, Kind, NAME_BYTES_MAX, PATH_BYTES_MAX, Refused, Take, Tree,
    UNPACKED_BYTES_MAX,
};
