//! The targets, one file each.

pub mod archive;
pub mod config;
pub mod interrupt;
pub mod profile;
pub mod resource_id;
pub mod stamper;
