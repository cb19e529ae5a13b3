//! A root mount in which shell scripts are run.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The program that scripts are written for.
pub const SHELL: &str = "/bin/sh";

/// Puts a program and its libraries into a root, each at its own path.
pub fn add_program(root: &Path, program: &str) {
    let listed = libraries_of(program);
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    // A process of its own, as for programs that are written: what another test starts meanwhile must not hold them open.
    let mut copy = Command::new("cp");
    let copied = copy.arg("--parents").args(libraries).arg(program).arg(root).status().unwrap();
    assert!(copied.success(), "copying {program} into {}: {copied}", root.display());
}

/// What `ldd` says of a program. The shell's is asked for once: thousands of roots have it.
fn libraries_of(program: &str) -> String {
    static OF_THE_SHELL: OnceLock<String> = OnceLock::new();
    let ask = || {
        let listed = Command::new("ldd").arg(program).output().expect("ldd is there");
        String::from_utf8(listed.stdout).unwrap()
    };
    if program == SHELL { OF_THE_SHELL.get_or_init(ask).clone() } else { ask() }
}
