//! The cgroup of a process that is watched: whether the kernel has ended a process in it for want of memory.
//!
//! Both versions are read, since a host accounts for memory in one of them: in the second `memory.events` says it, in the
//! first `memory.oom_control` (since Linux 4.13).

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use groundcrew_durable::epoch::PROC;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Where cgroups of the second version are mounted; beside the first version, beneath that.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where those of the first version are mounted that account for memory.
const OF_MEMORY: &str = "/sys/fs/cgroup/memory";
/// Longest text of the kernel's that is read here.
const TEXT_BYTES_MAX: u64 = 16 * 1024;

/// The cgroup of a process, held open: it may be removed the moment the process ends.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: OwnedFd,
    counted_in: &'static str,
    kills: u64,
}

impl Cgroup {
    /// That of a process; `None` where memory is not counted for it, as for that of a host's root.
    pub fn of(pid: u32) -> Option<Cgroup> {
        let lines = text_of(&Path::new(PROC).join(pid.to_string()).join("cgroup"))?;
        let unified = path_in(&lines, |controllers| controllers.is_empty());
        let unified = unified.into_iter().flat_map(|path| UNIFIED.map(|mount| Path::new(mount).join(&path)));
        let of_memory = path_in(&lines, |controllers| controllers.split(',').any(|one| one == "memory"));
        unified
            .map(|path| (path, "memory.events"))
            .chain(of_memory.map(|path| (Path::new(OF_MEMORY).join(path), "memory.oom_control")))
            .find_map(|(path, counted_in)| Cgroup::at(&path, counted_in))
    }

    fn at(path: &Path, counted_in: &'static str) -> Option<Cgroup> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty()).ok()?;
        let kills = kills_in(&folder, counted_in)?;
        Some(Cgroup { folder, counted_in, kills })
    }

    /// A child that was killed while the agent lives says nothing of the agent's own end.
    pub fn note(&mut self) {
        if let Some(kills) = kills_in(&self.folder, self.counted_in) {
            self.kills = kills;
        }
    }

    /// Whether a process was killed since it was noted.
    pub fn has_killed(&self) -> bool {
        kills_in(&self.folder, self.counted_in).is_some_and(|kills| kills > self.kills)
    }
}

/// The path of a cgroup in /proc/PID/cgroup, `NUMBER:CONTROLLERS:/PATH`, cgroups(7), beneath its mount.
fn path_in(lines: &str, is_wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let paths = lines.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        is_wanted(controllers).then_some(path)
    });
    let is_plain =
        |path: &&str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    paths.take(1).find(is_plain).map(PathBuf::from)
}

fn kills_in(folder: &OwnedFd, counted_in: &str) -> Option<u64> {
    let file = openat(folder, counted_in, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// A text of the kernel's.
pub(super) fn text_of(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_counts_only_what_was_killed_since_the_last_look() {
        for (counted_in, before) in
            [("memory.events", "low 0\noom 7\n"), ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")]
        {
            let folder = tempfile::tempdir().unwrap();
            assert!(Cgroup::at(folder.path(), counted_in).is_none(), "it counts no memory");
            let count = |kills: u64| {
                let text = format!("{before}oom_kill {kills}\n");
                std::fs::write(folder.path().join(counted_in), text).unwrap();
            };
            count(2);
            let mut cgroup = Cgroup::at(folder.path(), counted_in).unwrap();
            assert!(!cgroup.has_killed());
            count(3);
            assert!(cgroup.has_killed());
            cgroup.note();
            assert!(!cgroup.has_killed());
            std::fs::remove_file(folder.path().join(counted_in)).unwrap();
            assert!(!cgroup.has_killed(), "one that is gone says nothing");
        }
    }

    #[test]
    fn the_path_of_a_cgroup_is_found_by_its_controllers() {
        let unified = |lines| path_in(lines, str::is_empty);
        assert_eq!(
            unified("4:memory:/a\n0::/system.slice/x.service\n"),
            Some("system.slice/x.service".into())
        );
        assert_eq!((unified("0::/../x"), unified("1:cpu:/x")), (None, None));
        assert_eq!(unified("0::/"), Some(PathBuf::new()));
        let of_memory =
            |lines| path_in(lines, |controllers| controllers.split(',').any(|one| one == "memory"));
        assert_eq!(of_memory("9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c"), Some("a/b".into()));
        assert_eq!(of_memory("4:memoryless:/a\n0::/c"), None);
    }
}
