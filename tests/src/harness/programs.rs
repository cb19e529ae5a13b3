//! Programs that a test puts where an agent runs them.
//!
//! None is written by the test's own process: what another test starts meanwhile would hold the file open for writing until
//! it has become its program, and the kernel refuses to run such a file (ETXTBSY).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const SHELL: &str = "/bin/sh";

/// Makes a program of a shell script, which says itself how it is run.
pub fn write_program(path: &Path, script: &str) {
    let written = Command::new(SHELL).args(["-c", "printf %s \"$1\" >\"$0\""]).arg(path).arg(script).status();
    let written = written.expect("every system has a shell");
    assert!(written.success(), "writing {}: {written}", path.display());
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
}

/// Makes a root that has a shell, its libraries and nothing else.
pub fn make_root(root: &Path) {
    std::fs::create_dir(root).expect("the folder is ours");
    let needs = Command::new("ldd").arg(SHELL).output().expect("ldd comes with every libc");
    let needs = String::from_utf8(needs.stdout).expect("paths of the system are UTF-8");
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
    let copied = Command::new("cp").arg("--parents").args(libraries).arg(SHELL).arg(root).status();
    let copied = copied.expect("every system has cp");
    assert!(copied.success(), "copying {SHELL} into {}: {copied}", root.display());
}
