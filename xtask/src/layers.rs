//! `cargo xtask check-layers`: holds the table of `table.rs` against the manifests, the dependency trees and the
//! sources. Reads only; every finding names a file and a line.

mod crates;
mod modules;
mod paths;
mod table;
mod tokens;

use std::fmt;

use anyhow::{Result, bail};

use crate::cargo;

/// One breach of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Relative to the root of the workspace.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// Checks everything and prints every finding; fails if there is one.
///
/// The trees come last and only where all else holds: cargo refuses to draw them from manifests that do not fit
/// together, and a wrong arrow in a manifest would show in them a second time.
pub fn run() -> Result<()> {
    let root = cargo::root();
    let mut findings = crates::check_manifests(&root)?;
    findings.extend(modules::check(&root)?);
    if findings.is_empty() {
        findings = crates::check_trees()?;
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings against xtask/src/layers/table.rs", findings.len());
    }
    println!("layers hold: {} crates", table::CRATES.len());
    Ok(())
}
