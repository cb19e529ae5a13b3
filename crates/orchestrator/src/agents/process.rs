//! A process of this host that is watched: by a pidfd, which no other process can come to mean, and by its cgroup
//! ([`super::cgroup`]), which says whether the kernel ended it for want of memory. What the kernel says, and nothing of
//! what follows from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use groundcrew_durable::epoch::{PROC, process_start};
use groundcrew_protocol::agent_info::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Updater, ioctl};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cgroup::{Cgroup, text_of};

/// The exit status as wait(2) gives it: field 52 of a stat line, the 50th after the name (proc_pid_stat(5)).
const EXIT_AFTER_NAME: usize = 52 - 3;

/// A process of this boot, by its number and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// Reads what an agent calls itself, `BOOT:PID:START`; `None` where that is of another boot, or no such name.
    pub fn of(runtime_id: &str, boot_id: &str) -> Option<ProcessId> {
        let (pid, start) = runtime_id.strip_prefix(boot_id)?.strip_prefix(':')?.split_once(':')?;
        Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
}

/// A process that is watched.
#[derive(Debug)]
pub struct Watched {
    id: ProcessId,
    pidfd: OwnedFd,
    cgroup: Option<Cgroup>,
}

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It runs.
    Runs,
    /// It has ended.
    Ended {
        /// With what, where that can be told.
        exit: Option<Exit>,
        /// The kernel ended a process of its cgroup for want of memory since it was last looked at.
        out_of_memory: bool,
    },
}

impl Watched {
    /// Takes hold of a process that runs; `None` where there is none of this number and start.
    pub fn hold(id: ProcessId) -> Option<Watched> {
        let number = Pid::from_raw(i32::try_from(id.pid).ok()?)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // Read after it is held: now the number cannot change hands any more.
        let start = process_start(Path::new(PROC), id.pid).ok().flatten();
        (start == Some(id.start)).then(|| Watched { id, pidfd, cgroup: Cgroup::of(id.pid) })
    }

    /// How it stands.
    pub fn look(&mut self) -> Sight {
        if !has_ended(self.pidfd.as_fd()) {
            if let Some(cgroup) = &mut self.cgroup {
                cgroup.note();
            }
            return Sight::Runs;
        }
        let exit = exit_of(self.pidfd.as_fd()).or_else(|| exit_of_zombie(self.id.pid));
        let out_of_memory = self.cgroup.as_ref().is_some_and(Cgroup::has_killed);
        Sight::Ended { exit, out_of_memory }
    }

    /// What becomes readable once it has ended.
    pub fn end(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A failure to ask (a signal) is no end; the next look asks again.
    poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The kernel's `struct pidfd_info`, linux/pidfd.h, in its first size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid, and the real, effective, saved and file system's user and group.
    ids: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
/// Asks for the exit status, and says in the answer that it is there (since Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// What an ended and reaped process left, where this kernel tells those who are not its parent.
fn exit_of(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode is PIDFD_GET_INFO, which reads and writes one `struct pidfd_info` of the size in the opcode, 64
    // bytes, which is that of this type; every bit pattern is a value of it.
    let asked = unsafe { ioctl(pidfd, Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut info)) };
    (asked.is_ok() && info.mask & PIDFD_INFO_EXIT != 0).then(|| exit_of_status(info.exit_code))
}

/// A status as wait(2) has it.
fn exit_of_status(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// What a process left that nobody has reaped yet. The kernel shows 0 to those who may not know, which says nothing.
fn exit_of_zombie(pid: u32) -> Option<Exit> {
    let line = text_of(&Path::new(PROC).join(pid.to_string()).join("stat"))?;
    let (_, after_name) = line.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let is_zombie = fields.clone().next() == Some("Z");
    let status: i32 = fields.nth(EXIT_AFTER_NAME)?.parse().ok()?;
    (is_zombie && status != 0).then(|| exit_of_status(status))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn held(child: &Child) -> Watched {
        let start = process_start(Path::new(PROC), child.id()).unwrap().unwrap();
        assert!(
            Watched::hold(ProcessId { pid: child.id(), start: start + 1 }).is_none(),
            "another process's"
        );
        Watched::hold(ProcessId { pid: child.id(), start }).unwrap()
    }

    fn wait_for(end: &OwnedFd) {
        let ready = poll(&mut [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)], None).unwrap();
        assert_eq!(ready, 1);
    }

    #[test]
    fn an_end_is_seen_before_and_after_it_is_reaped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut watched = held(&child);
        assert_eq!(watched.look(), Sight::Runs);
        child.kill().unwrap();
        wait_for(&watched.end().unwrap());
        let killed = Sight::Ended { exit: Some(Exit::Signal(9)), out_of_memory: false };
        // Where this process may not read a zombie's status, nothing is said of it.
        assert!([killed, Sight::Ended { exit: None, out_of_memory: false }].contains(&watched.look()));
        child.wait().unwrap();
        assert!([killed, Sight::Ended { exit: None, out_of_memory: false }].contains(&watched.look()));
    }

    #[test]
    fn a_status_is_read_as_wait_gives_it() {
        for (status, exit) in
            [(0, Exit::Code(0)), (3 << 8, Exit::Code(3)), (9, Exit::Signal(9)), (0x80 | 11, Exit::Signal(11))]
        {
            assert_eq!(exit_of_status(status), exit);
        }
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }

    #[test]
    fn only_a_name_of_this_boot_means_a_process_here() {
        let of = |id| ProcessId::of(id, "boot-a");
        assert_eq!(of("boot-a:7:99"), Some(ProcessId { pid: 7, start: 99 }));
        for other in ["boot-b:7:99", "boot-a:7", "boot-a7:99", "boot-a:x:1", "boot-a:7:99:1", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
