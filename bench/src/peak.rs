//! The most memory that a program ever had, as the kernel counted it when it ended.
//!
//! The kernel counts for a process also what the one had that started it, up to the moment at which it becomes its program,
//! and the benchmark has more than what is measured. So this very program, started anew, stands between the two: it has
//! little, and does nothing else.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

/// Name of the hidden subcommand.
const SUBCOMMAND: &str = "peak-of";

/// A command that runs a program and writes into a file the most memory that it had. What is added to it, arguments,
/// environment and streams, is the program's.
///
/// # Errors
/// Where this very program cannot be found.
pub fn watched(program: &OsStr, into: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("looking for this very program")?);
    command.arg(SUBCOMMAND).arg(into).arg(program);
    Ok(command)
}

/// What a [`watched`] command found, in bytes.
///
/// # Errors
/// Where it has not ended well.
pub fn read(from: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(from).with_context(|| format!("reading {}", from.display()))?;
    text.parse().with_context(|| format!("reading {}: it holds {text:?}", from.display()))
}

/// The subcommand: runs a program to its end, which must be a good one.
///
/// # Errors
/// Where the program cannot be started, or fails.
pub fn run(into: &Path, command: &[OsString]) -> Result<()> {
    let [program, arguments @ ..] = command else { unreachable!("it is asked for with a program") };
    let mut command = Command::new(program);
    // SAFETY: nothing is done between fork and exec. That there is something to do makes it a fork, whose copy has only a
    // part of what this process has; what shares its memory until the exec counts for all of it.
    unsafe { command.args(arguments).pre_exec(|| Ok(())) };
    #[allow(clippy::zombie_processes, reason = "it is waited for below, by its number")]
    let child = command.spawn();
    let child = child.with_context(|| format!("starting {}", program.display()))?;
    let (status, bytes) = wait(child.id().cast_signed())?;
    ensure!(status.success(), "{} ended with {status}", program.display());
    std::fs::write(into, bytes.to_string()).with_context(|| format!("writing {}", into.display()))
}

/// Waits for a child, and asks what it needed.
fn wait(pid: i32) -> Result<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: zeros are a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours to be written to.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "waiting for the process {pid}: {}", std::io::Error::last_os_error());
    let kilobytes = u64::try_from(usage.ru_maxrss).context("the kernel counts memory from 0 on")?;
    Ok((ExitStatus::from_raw(status), kilobytes * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much as `dd` takes for its buffer.
    fn peak_of(buffer: &str) -> u64 {
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "of=/dev/null", "count=1", "status=none"]).arg(format!("bs={buffer}"));
        #[allow(clippy::zombie_processes, reason = "it is waited for below, by its number")]
        let child = dd.spawn().unwrap();
        let (status, bytes) = wait(child.id().cast_signed()).unwrap();
        assert!(status.success());
        bytes
    }

    #[test]
    fn what_a_program_had_is_known_after_its_end() {
        // More than this very process may have had when it started it.
        let large = peak_of("200M");
        assert!((200_000_000..300_000_000).contains(&large), "{large}");
        assert!(peak_of("1k") < large);
    }

    #[test]
    fn a_program_that_fails_or_is_none_leaves_no_figure() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("peak");
        let failed = run(&into, &["false".into()]).unwrap_err().to_string();
        assert!(failed.contains("false ended with exit status: 1"), "{failed}");
        let none = run(&into, &["/no/such/program".into()]).unwrap_err().to_string();
        assert!(none.contains("starting /no/such/program"), "{none}");
        assert!(read(&into).unwrap_err().to_string().contains("peak"));
        run(&into, &["true".into()]).unwrap();
        let least = read(&into).unwrap();
        // Less than what this very process has, which it is not counted with.
        let own = crate::process::memory_of(std::process::id()).unwrap().resident;
        assert!((100_000..own).contains(&least), "{least} of {own}");
    }
}
