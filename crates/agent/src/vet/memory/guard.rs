//! What stands between a memory test and the agent: the order in which the kernel's OOM killer ends processes, a cgroup of
//! the test's own where the agent may make one, and the counts that tell whether anybody was ended.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use groundcrew_protocol::ids::Sha256Hex;

use crate::probe::Root;

const OWN_CGROUP: &str = "/proc/self/cgroup";
const CGROUPS: &str = "/sys/fs/cgroup";
const VMSTAT: &str = "/proc/vmstat";
const OWN_SCORE: &str = "/proc/self/oom_score_adj";
/// Not -1000: a kernel that has nobody else left to end may still end the agent rather than stand still.
const PROTECTED_SCORE: i32 = -900;
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// Digits of a sum that tell the agents of a machine apart.
const NAME_DIGITS: usize = 16;
/// Killed processes with much memory take some seconds to give it back.
const LEFT_BEHIND_TIME: Duration = Duration::from_secs(10);
const LEFT_BEHIND_PAUSE: Duration = Duration::from_millis(20);

/// The agent, which the OOM killer takes late while this is there.
pub(super) struct Protected {
    path: PathBuf,
    before: i32,
}

impl Protected {
    /// Protects the agent.
    ///
    /// # Errors
    /// Why that could not be done; as an ordinary user it cannot.
    pub fn begin(root: &Root) -> Result<Protected, String> {
        let said = |error: std::io::Error| format!("{OWN_SCORE}: {error}");
        let text = root.text(OWN_SCORE, TEXT_BYTES_MAX).map_err(said)?;
        let before: i32 = text
            .trim()
            .parse()
            .map_err(|_| format!("{OWN_SCORE}: found \"{}\", expected a number", text.trim()))?;
        let path = root.path(OWN_SCORE);
        if before > PROTECTED_SCORE {
            std::fs::write(&path, PROTECTED_SCORE.to_string()).map_err(said)?;
        }
        Ok(Protected { path, before })
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        // Raising it again is allowed to everybody; where it fails all the same, the agent stays protected.
        let _ = std::fs::write(&self.path, self.before.to_string());
    }
}

/// A cgroup for the test alone, gone with this.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one beside the agent's own, with no swap and no more memory than this. Its name is that of the agent's folder, so
    /// that one which an agent left behind that was killed is found, with whatever still runs in it, and ended.
    ///
    /// # Errors
    /// Why there is none: the old hierarchy, no rights, no controller of memory, one left behind that does not go.
    pub fn make(root: &Root, work: &Path, bytes_max: u64) -> Result<Cgroup, String> {
        let own = own_cgroup(root)?;
        let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
        let folder = format!("{CGROUPS}{parent}");
        let controllers = root
            .text(&format!("{folder}/cgroup.subtree_control"), TEXT_BYTES_MAX)
            .map_err(|error| format!("{folder}/cgroup.subtree_control: {error}"))?;
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return Err(format!(
                "{folder} does not account for memory (no memory in cgroup.subtree_control)"
            ));
        }
        let path = root.path(&format!("{folder}/{}", name(work)));
        remove_left_behind(&path)?;
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let cgroup = Cgroup(path);
        // Swapped pages are not tested in memory, and a test that was half killed is none.
        for (file, value) in [
            ("memory.max", bytes_max.to_string()),
            ("memory.swap.max", "0".into()),
            ("memory.oom.group", "1".into()),
        ] {
            let path = cgroup.0.join(file);
            // A kernel without swap has no file for it.
            if file == "memory.max" || path.exists() {
                std::fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(cgroup)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// How many of its processes were OOM-killed.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn kills(&self) -> Result<u64, String> {
        let path = self.0.join("memory.events");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        count(&text, "oom_kill").ok_or_else(|| format!("{}: it has no line oom_kill", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The test's processes have ended. One that hangs in the kernel keeps it, and it harms nobody.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The name of the cgroup of an agent with this folder: no other has it.
fn name(work: &Path) -> String {
    let sum = Sha256Hex::of(work.as_os_str().as_bytes());
    format!("groundcrew-memory-{}", &sum.as_str()[..NAME_DIGITS])
}

/// Ends what still runs in a cgroup that an agent left behind, and removes it.
fn remove_left_behind(path: &Path) -> Result<(), String> {
    let began = Instant::now();
    let mut killed = false;
    loop {
        let error = match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        let failed =
            |error: std::io::Error| format!("{}, left behind by an earlier test: {error}", path.display());
        // A folder that is no cgroup has nothing that could be ended.
        if !path.join("cgroup.procs").exists() || began.elapsed() >= LEFT_BEHIND_TIME {
            return Err(failed(error));
        }
        if !killed {
            std::fs::write(path.join("cgroup.kill"), "1").map_err(failed)?;
            killed = true;
        }
        std::thread::sleep(LEFT_BEHIND_PAUSE);
    }
}

/// The path of the agent's own cgroup, beneath the root of the one hierarchy.
fn own_cgroup(root: &Root) -> Result<String, String> {
    let text = root.text(OWN_CGROUP, TEXT_BYTES_MAX).map_err(|error| format!("{OWN_CGROUP}: {error}"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).map(str::trim);
    match own {
        Some(own) if root.exists(&format!("{CGROUPS}/cgroup.controllers")) && !own.contains("..") => {
            Ok(own.trim_end_matches('/').to_owned())
        }
        Some(_) | None => Err("this machine has no cgroups of version 2".to_owned()),
    }
}

/// What the cgroup that the agent is in may still take, where it is bounded at all: that of a container.
pub(super) fn room_of_own_cgroup(root: &Root) -> Option<u64> {
    let folder = format!("{CGROUPS}{}", own_cgroup(root).ok()?);
    let number = |file: &str| root.detail(&format!("{folder}/{file}"))?.parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// How many processes the OOM killer has ended since the machine started.
///
/// # Errors
/// Where the kernel does not say.
pub(super) fn oom_kills(root: &Root) -> Result<u64, String> {
    let text = root.text(VMSTAT, TEXT_BYTES_MAX).map_err(|error| format!("{VMSTAT}: {error}"))?;
    count(&text, "oom_kill").ok_or_else(|| format!("{VMSTAT}: it has no line oom_kill"))
}

fn count(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Whether somebody was ended for want of memory.
///
/// # Errors
/// That somebody was, or that nobody can tell.
pub(super) fn ended(
    before: Result<u64, String>,
    after: Result<u64, String>,
    in_cgroup: Result<u64, String>,
) -> Result<(), String> {
    let cannot = |why: String| format!("nobody can tell whether the test was OOM-killed: {why}");
    let of_cgroup = in_cgroup.map_err(cannot)?;
    let (before, after) = (before.map_err(cannot)?, after.map_err(cannot)?);
    let grown = after
        .checked_sub(before)
        .ok_or_else(|| cannot(format!("{VMSTAT}: oom_kill went back from {before} to {after}")))?;
    match grown.max(of_cgroup) {
        0 => Ok(()),
        count => Err(format!(
            "the kernel ran out of memory during the test and ended {count} processes: raise reserve_percent or free memory"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::Machine;

    #[test]
    fn the_agent_is_protected_while_the_test_runs_and_not_after() {
        let machine = Machine::empty();
        assert!(Protected::begin(&machine.root).is_err());
        machine.write(OWN_SCORE, "0\n");
        let score = || machine.root.text(OWN_SCORE, 100).unwrap();
        let protected = Protected::begin(&machine.root).unwrap();
        assert_eq!(score(), "-900");
        drop(protected);
        assert_eq!(score(), "0");
        machine.write(OWN_SCORE, "-1000\n");
        let protected = Protected::begin(&machine.root).unwrap();
        assert_eq!(score(), "-1000\n", "what protects it better stays");
        drop(protected);
    }

    #[test]
    fn a_cgroup_is_made_beside_the_agents_own_and_goes() {
        let machine = Machine::empty();
        let make = || {
            Cgroup::make(&machine.root, Path::new("/var/lib/agent"), 4096)
                .map(|cgroup| cgroup.folder().to_owned())
        };
        assert!(make().is_err());
        machine.write(OWN_CGROUP, "0::/system.slice/groundcrew.service\n");
        assert!(make().unwrap_err().contains("version 2"));
        machine.write("/sys/fs/cgroup/cgroup.controllers", "memory");
        machine.write("/sys/fs/cgroup/system.slice/cgroup.subtree_control", "cpu pids");
        assert!(make().unwrap_err().contains("does not account for memory"));
        machine.write("/sys/fs/cgroup/system.slice/cgroup.subtree_control", "cpu memory");
        let cgroup = Cgroup::make(&machine.root, Path::new("/var/lib/agent"), 4096).unwrap();
        assert!(cgroup.folder().starts_with(machine.root.path("/sys/fs/cgroup/system.slice")));
        assert_eq!(std::fs::read_to_string(cgroup.folder().join("memory.max")).unwrap(), "4096");
        assert!(cgroup.kills().is_err());
        std::fs::write(cgroup.folder().join("memory.events"), "oom 1\noom_kill 2\n").unwrap();
        assert_eq!(cgroup.kills(), Ok(2));
    }

    /// Files of the kernel are no files to a removal; in a folder of a disk they are, as in a cgroup with processes.
    #[test]
    fn a_cgroup_that_an_agent_left_behind_is_ended_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name(Path::new("/var/lib/agent")));
        assert_eq!(remove_left_behind(&path), Ok(()), "there is none");
        std::fs::create_dir(&path).unwrap();
        assert_eq!(remove_left_behind(&path), Ok(()));
        assert!(!path.exists(), "an empty one goes");
        std::fs::create_dir_all(path.join("child")).unwrap();
        assert!(remove_left_behind(&path).unwrap_err().contains("left behind by an earlier test"));
        assert_ne!(name(Path::new("/a")), name(Path::new("/b")), "that of another agent stays");
        assert_eq!(name(Path::new("/a")), name(Path::new("/a")), "the next agent finds it");
    }

    #[test]
    fn the_room_of_a_container_is_what_it_may_still_take() {
        let machine = Machine::empty();
        assert_eq!(room_of_own_cgroup(&machine.root), None);
        machine.write(OWN_CGROUP, "0::/\n");
        machine.write("/sys/fs/cgroup/cgroup.controllers", "memory");
        machine.write("/sys/fs/cgroup/memory.max", "max\n");
        machine.write("/sys/fs/cgroup/memory.current", "1000\n");
        assert_eq!(room_of_own_cgroup(&machine.root), None);
        machine.write("/sys/fs/cgroup/memory.max", "5000\n");
        assert_eq!(room_of_own_cgroup(&machine.root), Some(4000));
    }

    #[test]
    fn whoever_was_ended_or_cannot_be_told_makes_the_test_say_nothing() {
        let bad = || Err("x".to_owned());
        assert_eq!(ended(Ok(3), Ok(3), Ok(0)), Ok(()));
        assert!(ended(Ok(3), Ok(4), Ok(0)).unwrap_err().contains("ended 1 processes"));
        assert!(ended(Ok(3), Ok(3), Ok(2)).unwrap_err().contains("ended 2 processes"));
        for (before, after, cgroup) in
            [(bad(), Ok(0), Ok(0)), (Ok(0), bad(), Ok(0)), (Ok(0), Ok(0), bad()), (Ok(1), Ok(0), Ok(0))]
        {
            assert!(ended(before, after, cgroup).unwrap_err().contains("nobody can tell"));
        }
    }
}
