//! A cgroup with little memory, in which the kernel ends whoever takes more: of the version that this host accounts for
//! memory in.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};

use super::{Process, eventually, mount};

/// Where cgroups are mounted: of the second version, and of the first for memory.
const UNIFIED: &str = "/sys/fs/cgroup";
const OF_MEMORY: &str = "/sys/fs/cgroup/memory";
/// What a test needs that makes one.
const NEED: &str = "this test needs a cgroup of its own that memory is accounted in";

/// A cgroup of the test's own.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes one with so much memory, and no more of it on a swap. Call it in mounts of the test's own.
    pub fn with_memory(bytes: u64) -> Cgroup {
        let of_first = Path::new(OF_MEMORY).is_dir();
        let mounted = if of_first { OF_MEMORY } else { UNIFIED };
        if access(mounted, Access::WRITE_OK).is_err() {
            // As containers have it. Root may have another view of the same.
            mount(&["-o", "remount,bind,rw", mounted]);
        }
        let parent = if of_first { Path::new(mounted).join(own(":memory:")) } else { parent_of_second() };
        let folder = parent.join(format!("groundcrew-test-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap_or_else(|error| panic!("{NEED}: {}: {error}", folder.display()));
        let cgroup = Cgroup { folder };
        let (limit, with_swap) = match of_first {
            true => ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", bytes)),
            false => ("memory.max", ("memory.swap.max", 0)),
        };
        cgroup.set(limit, bytes);
        // A kernel without swap has no file for it.
        if cgroup.folder.join(with_swap.0).exists() {
            cgroup.set(with_swap.0, with_swap.1);
        }
        cgroup
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has a process take all of its memory. The kernel first ends whoever in it has the highest oom_score_adj.
    pub fn fill(&self) -> Process {
        let mut command = command_in(&self.folder, Path::new("/usr/bin/tail"));
        Process::start("what takes all memory", command.arg("/dev/zero"))
    }

    /// Removes it, once what was in it has ended.
    pub fn remove(self) {
        eventually("a cgroup that nobody is in", || std::fs::remove_dir(&self.folder).ok());
    }

    fn set(&self, name: &str, value: u64) {
        let path = self.folder.join(name);
        let set = std::fs::write(&path, value.to_string());
        set.unwrap_or_else(|error| panic!("{NEED}: {}: {error}", path.display()));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // One that was removed is gone; a test that failed leaves it only where something still runs in it.
        let _gone = std::fs::remove_dir(&self.folder);
    }
}

/// A program that is started in a cgroup.
pub(super) fn command_in(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", "echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"", "sh"]);
    command.arg(folder).arg(program);
    command
}

/// The path of this process's own cgroup beneath its mount; `mark` is what its line in /proc/self/cgroup holds.
fn own(mark: &str) -> PathBuf {
    let lines = std::fs::read_to_string("/proc/self/cgroup").expect("every process has its cgroups");
    let path = lines.lines().find_map(|line| line.split_once(mark)?.1.strip_prefix('/'));
    PathBuf::from(path.unwrap_or_else(|| panic!("{NEED}; found {lines:?}")))
}

/// The nearest cgroup of the second version whose children are accounted: one with processes in it may have none.
fn parent_of_second() -> PathBuf {
    let own = Path::new(UNIFIED).join(own("0::"));
    let accounts = |folder: &&Path| {
        let controllers = std::fs::read_to_string(folder.join("cgroup.subtree_control"));
        controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory"))
    };
    let found = own.ancestors().take_while(|folder| folder.starts_with(UNIFIED)).find(accounts);
    found
        .unwrap_or_else(|| panic!("{NEED}: no cgroup.subtree_control above {} names it", own.display()))
        .to_owned()
}
