//! `cargo xtask test`: builds every binary and test of the workspace, then runs them.
//!
//! Tests kill the binaries at chosen points of a durable write, which needs the feature `faults` of groundcrew-durable.
//! The package groundcrew-tests asks for it, and cargo unites the features of all packages that are selected together:
//! with `--workspace` the debug binaries have it as well. The shipped ones are selected without that package, so they
//! do not have it (`release.rs` builds and proves that).
//!
//! Building and running must select alike, or cargo would compile the workspace twice: `--tests` counts the
//! dev-dependencies in just as `cargo test` does, `--bins` adds the plain binaries that end-to-end tests start.

use anyhow::{Result, ensure};

use crate::{cargo, guest, packages};

/// How many seeds the model test runs unless told.
const SEEDS: u64 = 10_000;

/// What the property tests draw their inputs from. With one seed a change passes or fails by what it changes; rare inputs
/// are searched for with `--fresh`, and one that breaks a rule becomes a test of its own.
const PROPERTY_SEED: &str = "11";

/// What `cargo xtask test` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Run the tests that boot a guest too.
    pub guests: bool,
    /// Seeds of the model test.
    pub seeds: u64,
    /// Let the property tests draw inputs that nobody has drawn before.
    pub fresh: bool,
    /// Only tests whose names hold one of these; all where there is none.
    pub filters: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options { guests: true, seeds: SEEDS, fresh: false, filters: Vec::new() }
    }
}

/// Builds and runs the tests; what they print ends with cargo's own closing lines.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the tests mount file systems, change roots and boot guests, for which they need root; run `sudo cargo xtask test`, \
         or `cargo test -p CRATE --lib` for those of one crate that do not"
    );
    packages::ensure(packages::Need::Test)?;
    let guests = options.guests.then(guest::prepare).transpose()?;
    cargo::run(cargo::cargo().args(["build", "--workspace", "--bins", "--tests"]))?;
    let mut test = cargo::cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]);
    if !options.filters.is_empty() {
        test.arg("--").args(&options.filters);
    }
    test.env("GROUNDCREW_BIN_DIR", cargo::target_folder()?.join("debug"));
    test.env("GROUNDCREW_MODEL_SEEDS", options.seeds.to_string());
    if !options.fresh {
        test.env("PROPTEST_RNG_SEED", PROPERTY_SEED);
    }
    let Some(guests) = guests else {
        eprintln!("tests that boot a guest are left out (--no-vm)");
        return cargo::run(test.env("GROUNDCREW_NO_VM", "1"));
    };
    guest::forget_spent(&guests)?;
    let outcome = cargo::run(test.env("GROUNDCREW_GUEST_DIR", &guests).env_remove("GROUNDCREW_NO_VM"));
    if let Some(spent) = guest::spent(&guests) {
        eprintln!("{spent}");
    }
    outcome
}
