//! Ends what is left of children: after one has ended, and after an agent was killed.
//!
//! A child leads a session and carries a cookie in its environment, and so does what it starts. What is in the
//! session or carries the cookie belongs to it, also where it was adopted by process 1 or made a session of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use groundcrew_protocol::ids::BootId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::child_record::{self, ChildRecord};
use super::proc_stat::{self, ProcStat};

/// The variable that names a child in its own environment and in that of what it starts.
pub const COOKIE_VARIABLE: &str = "GROUNDCREW_CHILD";
/// Greatest environment that is searched for a cookie.
const ENVIRONMENT_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Killed processes are waited for this long altogether; one in an uninterruptible wait may need longer.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Processes that are found in one look are killed, then it is looked again: some may have forked meanwhile.
const LOOKS_MAX: usize = 16;

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// For each program of which something ran: its name and how many processes were ended.
    pub ended: Vec<(String, usize)>,
    /// Processes that were killed and are still there: they hang in the kernel.
    pub stuck: Vec<i32>,
}

/// Ends what a killed predecessor left running, as its home names it.
///
/// Nothing is touched where the boot is another one, or where the numbers belong to other processes by now.
///
/// # Errors
/// Where the record is there and cannot be read: then nobody knows what may still run, which is to be said.
pub fn sweep(home: &Path) -> io::Result<Swept> {
    let boot_id = boot_id();
    let mut swept = Swept::default();
    for child in child_record::read_left(home)? {
        if child.boot_id.is_some() && child.boot_id != boot_id {
            continue;
        }
        let (ended, stuck) = end_all(&child);
        if ended > 0 {
            swept.ended.push((child.program, ended));
        }
        swept.stuck.extend(stuck);
    }
    Ok(swept)
}

/// This boot's id; `None` where it cannot be read.
pub(super) fn boot_id() -> Option<BootId> {
    groundcrew_durable::epoch::boot_id(Path::new("/proc")).ok()?.parse().ok()
}

/// Kills everything that belongs to a child and waits until it is gone: how many it were, and which are not gone.
pub(super) fn end_all(child: &ChildRecord) -> (usize, Vec<i32>) {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut ended = 0;
    for _ in 0..LOOKS_MAX {
        let found = members(child);
        if found.is_empty() {
            return (ended, Vec::new());
        }
        let killed: Vec<OwnedFd> = found.iter().filter_map(kill).collect();
        ended += killed.len();
        if !wait_gone(&killed, deadline) {
            break;
        }
    }
    let left = members(child);
    (ended.saturating_sub(left.len()), left.iter().map(|process| process.pid).collect())
}

/// The living processes that belong to a child.
fn members(child: &ChildRecord) -> Vec<ProcStat> {
    let all = proc_stat::all();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    // A leader with another start is somebody else's, and so is its session. While a session has members its
    // number is not given out again.
    let session_is_ours =
        all.iter().find(|process| process.pid == child.pid).is_none_or(|leader| leader.start == child.start);
    all.into_iter()
        .filter(|process| !process.is_dead() && process.pid != own && process.start >= child.start)
        .filter(|process| {
            (session_is_ours && (process.session == child.pid || process.pid == child.pid))
                || has_cookie(process.pid, &child.cookie)
        })
        .collect()
}

fn has_cookie(pid: i32, cookie: &str) -> bool {
    use std::io::Read;
    let path = format!("/proc/{pid}/environ");
    let mut bytes = Vec::new();
    let Ok(file) = std::fs::File::open(path) else { return false };
    if file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut bytes).is_err() {
        return false;
    }
    let wanted = format!("{COOKIE_VARIABLE}={cookie}");
    !cookie.is_empty() && bytes.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// Kills a process through a descriptor of it, so that its number cannot come to mean another meanwhile.
fn kill(process: &ProcStat) -> Option<OwnedFd> {
    let handle = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    if proc_stat::read(process.pid)?.start != process.start {
        return None;
    }
    pidfd_send_signal(&handle, Signal::KILL).ok()?;
    Some(handle)
}

/// Waits until all are gone; false at the deadline.
fn wait_gone(processes: &[OwnedFd], deadline: Instant) -> bool {
    processes.iter().all(|process| {
        let left = deadline.saturating_duration_since(Instant::now());
        matches!(poll_one(process, left), Ok(true))
    })
}

/// Waits until a descriptor can be read, or for that long.
fn poll_one(descriptor: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
