//! What a program leaves behind that was killed before it could end its own.
//!
//! The agent starts each tool in a session of its own and ends what is left of it; one that is killed cannot. So `up` has
//! the kernel give it the orphans of all that it started, and ends them: they are its children, and no session of its.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::time::{Instant, sleep};

use crate::kin::Kin;
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
    let us = getpid().as_raw_nonzero().get();
    let (Some(ours), Ok(processes)) = (Kin::of_us(), std::fs::read_dir("/proc")) else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid: i32 = name.to_str()?.parse().ok()?;
            let its = Kin::of(name.to_str()?)?;
            Pid::from_raw(pid).filter(|_| its.parent == us && its.session != ours.session)
        })
        .collect()
}
