//! Programs that are shell scripts.
//!
//! Nothing that is going to be run is written by the test's own process: what another test starts meanwhile would hold the
//! file open for writing until it has become its program, and the kernel refuses to run such a file (ETXTBSY).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Makes a program of a shell script.
pub fn write_program(path: &Path, script: &str) {
    write_script(path, &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Writes such a program as a whole, and leaves its mode to whoever runs it.
pub fn write_script(path: &Path, text: &str) {
    const WRITE: [&str; 2] = ["-c", "printf %s \"$1\" >\"$0\""];
    let written = Command::new("/bin/sh").args(WRITE).arg(path).arg(text).status().unwrap();
    assert!(written.success(), "writing {}: {written}", path.display());
}
