//! Subcommands that stand above everything else: from arguments to an exit status.

pub mod drain;
pub mod package;
pub mod status;
