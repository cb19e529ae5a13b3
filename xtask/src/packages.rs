//! The Debian packages that a task needs: which, and why. Installs what is missing when run as root, and otherwise
//! says what to install; a task never goes on without them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo;

/// The tasks that need packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Up,
    Test,
    Guest,
    Fuzz,
    Bench,
    Dist,
}

/// What shows that a package is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An executable of this name on the PATH.
    Program(&'static str),
    /// A file at this path.
    File(&'static str),
}

/// A Debian package and the reason for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    pub sign: Sign,
    pub name: &'static str,
    pub why: &'static str,
    pub needs: &'static [Need],
}

/// Whatever builds the workspace.
const BUILDS: &[Need] = &[Need::Up, Need::Test, Need::Fuzz, Need::Bench, Need::Dist];

/// Every package that anything here needs beyond Rust itself.
pub const PACKAGES: &[Package] = &[
    Package {
        sign: Sign::Program("cc"),
        name: "gcc",
        why: "compiles SQLite, zstd and ring's assembly, and links every binary",
        needs: BUILDS,
    },
    Package {
        sign: Sign::File("/usr/include/stdio.h"),
        name: "libc6-dev",
        why: "the C headers that SQLite and zstd are compiled against, and the static C library of `dist`",
        needs: BUILDS,
    },
    Package {
        sign: Sign::Program("c++"),
        name: "g++",
        why: "compiles libFuzzer, which is C++",
        needs: &[Need::Fuzz],
    },
    Package {
        sign: Sign::Program("stress-ng"),
        name: "stress-ng",
        why: "does the work of the stages CPUStress and Memory",
        needs: &[Need::Up, Need::Test],
    },
    Package {
        sign: Sign::Program("fio"),
        name: "fio",
        why: "does the work of the stage Storage",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("mkfs.ext4"),
        name: "e2fsprogs",
        why: "puts a file system on a disk that a test must not write over",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("losetup"),
        name: "mount",
        why: "makes block devices of files, and mounts them",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::File("/usr/sbin/sshd"),
        name: "openssh-server",
        why: "lets a test in, or not, with the key of a hold",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("iperf3"),
        name: "iperf3",
        why: "does the work of the stage Network, and is its peer in tests",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("ssh"),
        name: "openssh-client",
        why: "logs into a held machine, as its operator does",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("chromium"),
        name: "chromium",
        why: "opens the pages, whose script nothing else runs",
        needs: &[Need::Test],
    },
    Package {
        sign: Sign::Program("mmdebstrap"),
        name: "mmdebstrap",
        why: "unpacks QEMU and the small Debian that tests boot, beside what is installed",
        needs: &[Need::Guest],
    },
    Package {
        sign: Sign::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        name: "debian-archive-keyring",
        why: "has the keys that the packages of those guests are signed with",
        needs: &[Need::Guest],
    },
    Package {
        sign: Sign::Program("debootstrap"),
        name: "debootstrap",
        why: "makes the root file system in which the recorded cases of the package agent are replayed",
        needs: &[Need::Test],
    },
];

/// Installs whatever is missing for `need`.
///
/// # Errors
/// When something is missing and this is not root, there is no apt-get, or apt-get did not bring it: the error lists
/// each missing package, why it is needed, and the command to run.
pub fn ensure(need: Need) -> Result<()> {
    let missing = missing_for(need, is_present);
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{}", explain("not run as root, so nothing was installed", &missing, "sudo "));
    }
    if !is_present(Sign::Program("apt-get")) {
        bail!("{}", explain("no apt-get here; install what gives the same", &missing, ""));
    }
    for package in &missing {
        eprintln!("installing {}: it {}", package.name, package.why);
    }
    cargo::run(&mut apt_get(&["update"]))?;
    cargo::run(apt_get(&install_arguments()).args(missing.iter().map(|package| package.name)))?;
    let still = missing_for(need, is_present);
    if !still.is_empty() {
        bail!("{}", explain("apt-get succeeded and yet this is not there", &still, ""));
    }
    Ok(())
}

fn missing_for(need: Need, present: impl Fn(Sign) -> bool) -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| package.needs.contains(&need) && !present(package.sign)).collect()
}

fn explain(reason: &str, missing: &[&Package], sudo: &str) -> String {
    let mut text = format!("packages are missing ({reason}):\n");
    for package in missing {
        text += &format!("  {}: {}\n", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let install = install_arguments().join(" ");
    text + &format!("run:\n  {sudo}apt-get update && {sudo}apt-get {install} {}", names.join(" "))
}

fn install_arguments() -> [&'static str; 3] {
    ["install", "-y", "--no-install-recommends"]
}

/// apt-get without questions, which waits a bounded time for another apt to finish.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}

fn is_present(sign: Sign) -> bool {
    match sign {
        Sign::File(path) => Path::new(path).is_file(),
        Sign::Program(name) => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| is_executable(&folder.join(name)))
        }
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_task_needs_and_lacks_is_missing() {
        let names = |need, present: fn(Sign) -> bool| -> Vec<&str> {
            missing_for(need, present).iter().map(|package| package.name).collect()
        };
        assert_eq!(names(Need::Up, |_| true), [""; 0]);
        assert_eq!(names(Need::Dist, |_| false), ["gcc", "libc6-dev"]);
        assert_eq!(names(Need::Test, |sign| sign != Sign::Program("stress-ng")), ["stress-ng"]);
        assert_eq!(names(Need::Test, |sign| sign != Sign::Program("chromium")), ["chromium"]);
        assert_eq!(names(Need::Up, |sign| sign != Sign::Program("chromium")), [""; 0]);
        assert_eq!(names(Need::Bench, |sign| sign != Sign::Program("stress-ng")), [""; 0]);
    }

    #[test]
    fn the_explanation_names_each_package_why_and_the_command() {
        let text = explain("not root", &missing_for(Need::Up, |_| false), "sudo ");
        for package in missing_for(Need::Up, |_| false) {
            assert!(text.contains(&format!("  {}: {}", package.name, package.why)), "{text}");
        }
        let command =
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends gcc libc6-dev stress-ng";
        assert!(text.ends_with(command), "{text}");
    }

    #[test]
    fn a_program_is_an_executable_file_on_the_path() {
        assert!(is_present(Sign::Program("sh")));
        assert!(!is_present(Sign::Program("no-such-program-anywhere")));
        assert!(!is_executable(Path::new("/usr")), "a folder is no program");
        assert!(!is_executable(Path::new("/etc/passwd")), "a file without the x bit is no program");
        assert!(is_present(Sign::File("/etc/passwd")));
        assert!(!is_present(Sign::File("/etc")));
    }
}
