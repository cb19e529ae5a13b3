//! What must hold for any bytes that others hand to Groundcrew, as functions of those bytes.
//!
//! Each [`Target`] takes an input and panics where a rule is broken. Two things call them: `cargo xtask fuzz`, which
//! lets libFuzzer search for inputs that reach new code, and this crate's tests, which try the committed ones, found by
//! it or written by hand, with every test run.

use std::path::PathBuf;

mod targets;

/// One thing that takes the bytes of others.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and of its folder of inputs.
    pub name: &'static str,
    /// Tries one input.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub check: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 6] = [
    Target { name: "archive", check: targets::archive::check },
    Target { name: "config", check: targets::config::check },
    Target { name: "interrupt", check: targets::interrupt::check },
    Target { name: "stamper", check: targets::stamper::check },
    Target { name: "resource_id", check: targets::resource_id::check },
    Target { name: "profile", check: targets::profile::check },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where a target's committed inputs lie.
pub fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}
