//! libFuzzer around one target, which `GROUNDCREW_FUZZ_TARGET` names. `cargo xtask fuzz` builds and starts it; the
//! arguments are libFuzzer's own.

#![no_main]

use std::sync::OnceLock;

use groundcrew_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("GROUNDCREW_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let known = TARGETS.map(|target| target.name).join(", ");
        panic!("GROUNDCREW_FUZZ_TARGET: found {name:?}, expected one of {known}")
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (CHOSEN.get_or_init(choose).check)(bytes));
