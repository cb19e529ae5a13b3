//! The mirrors that this machine's apt uses.

use std::process::Command;

use anyhow::Result;

use crate::cargo;

/// Where Debian is where apt knows no mirror of the release that is asked for.
const DEBIAN: &str = "http://deb.debian.org/debian";

/// Signs every release of Debian; the package debian-archive-keyring has it.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lines of a sources.list for a release of Debian: the release, its updates and its security updates, from the mirrors
/// that this machine uses.
///
/// # Errors
/// When apt cannot say what it uses.
pub fn sources(release: &str) -> Result<Vec<String>> {
    let format = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)";
    let said = cargo::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    Ok(lines(&said, release))
}

fn lines(said: &str, release: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in said.lines() {
        let fields: Vec<&str> = target.split('|').collect();
        let [origin, codename, component, mirror] = fields[..] else { continue };
        let is_of_release = codename == release || codename.strip_prefix(release).is_some_and(is_update);
        if origin == "Debian" && component == "main" && is_of_release {
            let line = format!("deb [signed-by={KEYS}] {mirror} {codename} main");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    if lines.is_empty() {
        lines.push(format!("deb [signed-by={KEYS}] {DEBIAN} {release} main"));
    }
    lines
}

/// Backports are no part of a release.
fn is_update(rest: &str) -> bool {
    ["-updates", "-security"].contains(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_release_and_its_updates_are_taken() {
        let said = "Debian|bookworm|main|http://mirror/debian/\n\
                    Debian|bookworm|non-free|http://mirror/debian/\n\
                    Debian|bookworm|main|http://mirror/debian/\n\
                    Debian|bookworm-backports|main|http://mirror/debian/\n\
                    Debian|bookworm-security|main|http://mirror/security/\n\
                    Docker|bookworm|main|http://other/\n\
                    nonsense\n";
        let signed = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        let expected = [
            format!("{signed} http://mirror/debian/ bookworm main"),
            format!("{signed} http://mirror/security/ bookworm-security main"),
        ];
        assert_eq!(lines(said, "bookworm"), expected);
    }

    #[test]
    fn a_machine_of_another_release_asks_debian() {
        let lines = lines("Debian|trixie|main|http://mirror/debian/\n", "bookworm");
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("http://deb.debian.org/debian bookworm main"), "{lines:?}");
    }
}
