//! A root mount for programs that are shell scripts.

use std::path::Path;

/// Makes a root that has a shell, its libraries, and nothing else.
pub fn make_root(root: &Path) {
    let listed = std::process::Command::new("ldd").arg("/bin/sh").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh"]) {
        let to = root.join(&file[1..]);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
}
