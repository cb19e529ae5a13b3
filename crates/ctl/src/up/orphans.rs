//! What a program leaves behind that was killed before it could end its own.
//!
//! The agent starts each tool in a session of its own and ends what is left of it; one that is killed cannot. So `up` has
//! the kernel give it the orphans of all that it started, and ends them: they are its children, and no session of its.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, getsid, kill_process, set_child_subreaper, waitpid};
use tokio::time::{Instant, sleep};

use crate::output::say_aside;

/// Killed processes are waited for this long; one in an uninterruptible wait may need longer.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks: a process that was killed is gone in microseconds, a busy machine may need more.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// From now on whoever outlives its parent, of all that we start, becomes our child.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("having orphans of the agent handed over")
}

/// Ends what we were handed over, and what that leaves in turn.
pub(super) async fn end_adopted() {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let found = adopted();
        if found.is_empty() {
            return;
        }
        if Instant::now() > until {
            let numbers: Vec<String> = found.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
            return say_aside(&format!("groundcrewctl: killed and still there: {}", numbers.join(", ")));
        }
        for pid in found {
            // Ours until we have waited for it: the number cannot come to mean another process before.
            for done in
                [kill_process(pid, Signal::KILL), waitpid(Some(pid), WaitOptions::NOHANG).map(|_status| ())]
            {
                match done {
                    Ok(()) | Err(Errno::SRCH | Errno::CHILD) => {}
                    Err(error) => {
                        say_aside(&format!("groundcrewctl: ending {}: {error}", pid.as_raw_nonzero()))
                    }
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Our children in other sessions than ours. What we start ourselves stays in ours.
fn adopted() -> Vec<Pid> {
    let (us, Ok(session)) = (getpid(), getsid(None)) else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, of_session) = parent_and_session(&stat)?;
            let is_adopted =
                parent == us.as_raw_nonzero().get() && of_session != session.as_raw_nonzero().get();
            Pid::from_raw(pid).filter(|_| is_adopted)
        })
        .collect()
}

/// From the line that the kernel says of a process: `pid (name) state parent group session …`; a name may hold anything.
fn parent_and_session(stat: &str) -> Option<(i32, i32)> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_session_are_found_behind_any_name() {
        assert_eq!(parent_and_session("7 (sh) S 5 7 3 0 -1"), Some((5, 3)));
        assert_eq!(parent_and_session("7 (a) S 9 (b) c) R 5 7 3 0"), Some((5, 3)));
        assert_eq!(parent_and_session("7 (sh) S 5"), None);
        assert_eq!(parent_and_session(""), None);
    }
}
