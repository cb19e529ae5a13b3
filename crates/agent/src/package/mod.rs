//! The package agent: applies a package's steps to the file system under a root mount, as operators know it.

pub mod copying;
pub mod flags;
pub mod history;
pub mod logs;
pub mod places;
pub mod rooted;
