//! What every program expects to find: kernel file systems, memory to write to; and the settings that the image was built
//! with.

use std::ffi::CStr;
use std::path::Path;

use groundcrew_durable::epoch;
use groundcrew_durable::whole::read_bounded;
use rustix::mount::{MountFlags, mount};

/// The settings that the image was built with: environment of the agent, which beats the kernel command line.
const SETTINGS: &str = "/etc/groundcrew/image.env";
/// A few lines.
const SETTINGS_BYTES_MAX: u64 = 64 * 1024;

/// What the agent has besides.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")];

/// Folder, kind, options.
const MOUNTS: [(&str, &str, &CStr); 8] = [
    ("/proc", "proc", c""),
    ("/sys", "sysfs", c""),
    ("/dev", "devtmpfs", c"mode=755"),
    ("/dev/pts", "devpts", c"mode=620,gid=5"),
    ("/dev/shm", "tmpfs", c"mode=1777"),
    ("/run", "tmpfs", c"mode=755"),
    ("/tmp", "tmpfs", c"mode=1777"),
    ("/sys/fs/cgroup", "cgroup2", c""),
];

/// What cgroups beneath the first one are to account for: the test of memory has a cgroup of its own.
const CONTROLLERS: (&str, &str) = ("/sys/fs/cgroup/cgroup.subtree_control", "+memory");

/// Mounts all of it. What fails is said, and the rest goes on: an agent that lacks something can say so.
pub(super) fn lay() {
    for (folder, kind, options) in MOUNTS {
        let made = std::fs::create_dir_all(folder);
        let done = made.and_then(|()| Ok(mount(kind, folder, kind, MountFlags::NOSUID, options)?));
        if let Err(error) = done {
            super::say(format_args!("mounting {kind} on {folder}: {error}"));
        }
    }
    let (file, controllers) = CONTROLLERS;
    if let Err(error) = std::fs::write(file, controllers) {
        super::say(format_args!("writing {controllers} to {file}: {error}"));
    }
}

/// This boot's id, for the console.
pub(super) fn boot_id() -> String {
    epoch::boot_id(Path::new(epoch::PROC)).unwrap_or_default()
}

/// The agent's environment. What cannot be understood is said and left out.
pub(super) fn settings(say: fn(std::fmt::Arguments)) -> Vec<(String, String)> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut all: Vec<_> = ENVIRONMENT.map(own).into();
    match read_bounded(Path::new(SETTINGS), SETTINGS_BYTES_MAX) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                match assignment(line) {
                    Some(variable) => all.push(own(variable)),
                    None => say(format_args!("{SETTINGS}: found {line:?}, expected NAME=VALUE")),
                }
            }
        }
        Err(error) => say(format_args!("{error}")),
    }
    all
}

/// A variable of the agent's own; no other can be given.
fn assignment(line: &str) -> Option<(&str, &str)> {
    line.split_once('=').filter(|(name, _)| name.starts_with("GROUNDCREW_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_the_agent_are_settings() {
        assert_eq!(assignment("GROUNDCREW_URL=https://a?b=c"), Some(("GROUNDCREW_URL", "https://a?b=c")));
        assert_eq!(assignment("GROUNDCREW_RUN="), Some(("GROUNDCREW_RUN", "")));
        for other in ["PATH=/tmp", "GROUNDCREW_URL", " GROUNDCREW_URL=x", "=x"] {
            assert_eq!(assignment(other), None, "{other}");
        }
    }
}
