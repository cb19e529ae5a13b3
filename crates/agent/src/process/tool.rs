//! Runs one external program, bounded in time and output, and waits for its end.
//!
//! [`run`] blocks, so it is called from a plain thread, never from the control loop. Two threads share the work:
//! the caller's watches the child's end, the deadline and the cancel handle; another reads the output and hands on
//! lines, and may be held up by whoever takes them. The caller's thread is also the one whose end would kill the
//! child (parent-death signal), which is right: it stays in here until the child has ended.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::cancel::Cancel;
use super::child_record::{ChildRecord, ChildRecords};
use super::launcher::{GO, Launcher};
use super::reader::{Reader, Waited};
use super::{proc_stat, sweep};

/// Time between the polite signal and the one that cannot be refused, for a tool that changes nothing.
pub const TERM_PATIENCE: Duration = Duration::from_secs(5);
/// Time in which a killed child must be gone; past it, it hangs in the kernel.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// A child's output may stay open and silent for this long after its end: something else holds it then.
pub(crate) const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// Whoever takes the lines may hold them up for this long after the child's end; a spool gives up long before.
const LINES_PATIENCE: Duration = Duration::from_secs(60);

/// An external program and its limits.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Name, looked for in `search_path`, or an absolute path.
    pub program: String,
    /// Arguments, without the name.
    pub arguments: Vec<OsString>,
    /// The whole environment; nothing is inherited. `PATH` is set from `search_path`.
    pub environment: Vec<(OsString, OsString)>,
    /// Folders, as `PATH` has them.
    pub search_path: OsString,
    /// It is ended after this.
    pub deadline: Duration,
    /// How long it may take to end once it is asked to; then it is killed, with everything that it started.
    pub term_patience: Duration,
    /// Bytes of standard output that are kept.
    pub stdout_bytes_max: usize,
    /// Bytes of standard error that are kept.
    pub stderr_bytes_max: usize,
    /// What becomes of processes that outlive it.
    pub leftovers: Leftovers,
    /// How it is set apart from the agent.
    pub confined: Confined,
}

/// How a program is set apart from the agent. It is before the program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confined {
    /// The folder of a cgroup that it is put into.
    pub cgroup: Option<PathBuf>,
    /// The kernel ends it before anything else where memory is short.
    pub first_to_go: bool,
}

impl Confined {
    fn confine(&self, pid: i32) -> io::Result<()> {
        if let Some(folder) = &self.cgroup {
            std::fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        if self.first_to_go {
            // The greatest there is (proc_pid_oom_score_adj(5)).
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?;
        }
        Ok(())
    }
}

/// What becomes of processes that a program started and left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed: a test must not disturb the next.
    Ended,
    /// They are left alone: it was the program's task to start them.
    Left,
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes a child's lines, in order within a stream. It may block for a while; the child's pipe then fills.
pub type Lines = Arc<dyn Fn(Output, String) + Send + Sync>;

/// What a program is run with.
pub struct Surroundings<'a> {
    /// What children are started through.
    pub launcher: &'a Launcher,
    /// Where they are written down.
    pub children: &'a ChildRecords,
    /// Ends it before its time.
    pub cancel: &'a Cancel,
    /// Takes its lines.
    pub lines: Lines,
}

/// The first bytes of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// What was kept.
    pub bytes: Vec<u8>,
    /// How many there were.
    pub bytes_seen: u64,
}

impl Captured {
    /// True where there was more than was kept.
    pub fn truncated(&self) -> bool {
        self.bytes_seen > self.bytes.len() as u64
    }

    pub(super) fn keep(&mut self, bytes: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.bytes_seen = self.bytes_seen.saturating_add(bytes.len() as u64);
    }
}

/// How a child came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Not at all: it was killed and hangs in the kernel. It stays written down.
    Stuck,
}

/// Why we ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its deadline passed.
    TimedOut,
    /// Somebody asked.
    Cancelled,
}

/// What came of a run.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Why we ended it, where we did.
    pub stopped: Option<Stopped>,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// How long it ran, by the monotonic clock.
    pub elapsed: Duration,
    /// Processes that outlived it and were ended.
    pub leftovers_ended: usize,
    /// The output is still open, because something that outlived it holds it, or lines are still being taken. It
    /// is read, and its lines handed on, until this is dropped.
    pub open_output: Option<OpenOutput>,
}

/// Output that outlives its program. Dropping it ends the reading.
#[derive(Debug)]
pub struct OpenOutput(#[expect(dead_code, reason = "held for its drop")] Reader);

/// Why a program did not run.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No folder has it.
    #[error("{program} is not installed (looked in {looked_in})")]
    NotInstalled {
        /// Its name.
        program: String,
        /// Where it was looked for.
        looked_in: String,
    },
    /// It could not be started.
    #[error("could not start {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It could not be written down, and was not let go.
    #[error("could not write down that {program} runs, so it was not started")]
    Record {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// Finds a program as a shell would.
///
/// # Errors
/// [`ToolError::NotInstalled`], which says where it was looked for.
pub fn find(program: &str, search_path: &OsStr) -> Result<PathBuf, ToolError> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|path| path.is_absolute() && runs(path))
    } else {
        std::env::split_paths(search_path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(|path| runs(path))
    };
    found.ok_or_else(|| ToolError::NotInstalled {
        program: program.to_owned(),
        looked_in: search_path.to_string_lossy().into_owned(),
    })
}

/// Runs a program to its end.
///
/// # Errors
/// Where it did not run. That it ran and failed is no error here but an [`Ending`].
pub fn run(tool: &Tool, around: &Surroundings<'_>) -> Result<Finished, ToolError> {
    let program = find(&tool.program, &tool.search_path)?;
    let began = Instant::now();
    let (mut child, record) = start(tool, &program, around)?;
    let (reader, handle) = match watch(tool, &mut child, around) {
        Ok(both) => both,
        Err(source) => {
            give_up(&mut child, &record, around.children);
            return Err(ToolError::Start { program: tool.program.clone(), source });
        }
    };
    let (stopped, gone) =
        wait_for_end(&handle, &record, began + tool.deadline, tool.term_patience, around.cancel);
    let elapsed = began.elapsed();
    let leftovers = match (gone, tool.leftovers) {
        (true, Leftovers::Ended) => sweep::end_all(&record).0,
        (true, Leftovers::Left) | (false, _) => 0,
    };
    let ending = if gone { reap(&mut child) } else { Ending::Stuck };
    if gone && let Err(error) = around.children.remove(record.pid) {
        let said = format!("could not strike {} off the record of children: {error}", tool.program);
        (around.lines)(Output::Stderr, said);
    }
    let waited = reader.wait(OUTPUT_PATIENCE, LINES_PATIENCE);
    if waited == Waited::HeldOpen {
        let said = format!("{} has ended and something that it started holds its output open", tool.program);
        (around.lines)(Output::Stderr, said);
    }
    let (stdout, stderr) = reader.captured();
    let open_output = (waited != Waited::Ended).then(|| OpenOutput(reader));
    Ok(Finished { ending, stopped, stdout, stderr, elapsed, leftovers_ended: leftovers, open_output })
}

/// Starts the launcher, writes its number down, and lets it go.
fn start(tool: &Tool, program: &Path, around: &Surroundings<'_>) -> Result<(Child, ChildRecord), ToolError> {
    let failed = |source| ToolError::Start { program: tool.program.clone(), source };
    let cookie = cookie().map_err(failed)?;
    let mut child = around
        .launcher
        .command(program.as_os_str(), &tool.arguments)
        .env_clear()
        .envs(tool.environment.iter().map(|(name, value)| (name, value)))
        .env("PATH", &tool.search_path)
        .env(sweep::COOKIE_VARIABLE, &cookie)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let pid = i32::try_from(child.id()).expect("process numbers fit an i32");
    let start = proc_stat::read(pid).map_or(0, |stat| stat.start);
    let boot_id = sweep::boot_id();
    let record = ChildRecord { pid, start, boot_id, cookie, program: tool.program.clone() };
    if let Err(source) = around.children.add(record.clone()) {
        give_up(&mut child, &record, around.children);
        return Err(ToolError::Record { program: tool.program.clone(), source });
    }
    if let Err(source) = tool.confined.confine(pid) {
        give_up(&mut child, &record, around.children);
        return Err(failed(source));
    }
    let mut gate = child.stdin.take().expect("the standard input is a pipe");
    match gate.write_all(GO) {
        // Its end says why it did not wait.
        Ok(()) => Ok((child, record)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok((child, record)),
        Err(source) => {
            drop(gate);
            give_up(&mut child, &record, around.children);
            Err(failed(source))
        }
    }
}

fn cookie() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(groundcrew_protocol::ids::hex(&bytes))
}

/// Ends a child that cannot be watched.
fn give_up(child: &mut Child, record: &ChildRecord, children: &ChildRecords) {
    sweep::end_all(record);
    // Both fail only where it is gone already, or is no longer ours to end.
    let _ = child.kill();
    let _ = child.wait();
    let _ = children.remove(record.pid);
}

fn watch(tool: &Tool, child: &mut Child, around: &Surroundings<'_>) -> io::Result<(Reader, OwnedFd)> {
    let stdout = child.stdout.take().expect("the standard output is a pipe");
    let stderr = child.stderr.take().expect("the standard error is a pipe");
    let bytes_max = (tool.stdout_bytes_max, tool.stderr_bytes_max);
    let reader = Reader::start(stdout.into(), stderr.into(), bytes_max, Arc::clone(&around.lines))?;
    let pid = Pid::from_child(child);
    Ok((reader, pidfd_open(pid, PidfdFlags::empty())?))
}

/// Where the ending of a child stands; each part has its deadline.
enum Part {
    Running,
    AskedToEnd,
    Killed,
}

/// Waits until the child is dead (and not yet reaped), ending it when its time has come. False where it does not
/// die.
fn wait_for_end(
    handle: &OwnedFd,
    record: &ChildRecord,
    deadline: Instant,
    term_patience: Duration,
    cancel: &Cancel,
) -> (Option<Stopped>, bool) {
    let mut part = Part::Running;
    let mut until = deadline;
    let mut stopped = None;
    loop {
        let watched = matches!(part, Part::Running).then_some(cancel);
        if wait_for_event(handle, watched, until) {
            return (stopped, true);
        }
        let now = Instant::now();
        match part {
            Part::Running if cancel.is_asked() || now >= until => {
                stopped = Some(if cancel.is_asked() { Stopped::Cancelled } else { Stopped::TimedOut });
                ask_to_end(record.pid);
                part = Part::AskedToEnd;
                until = now + term_patience;
            }
            Part::AskedToEnd if now >= until => {
                sweep::end_all(record);
                part = Part::Killed;
                until = Instant::now() + KILL_PATIENCE;
            }
            Part::Killed if now >= until => return (stopped, false),
            Part::Running | Part::AskedToEnd | Part::Killed => {}
        }
    }
}

/// Waits for the child's end (true), or for a cancel or the deadline (false).
fn wait_for_event(handle: &OwnedFd, cancel: Option<&Cancel>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    // A deadline past what the kernel can count is none.
    let left = Timespec::try_from(left).ok();
    let mut polled = vec![PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    polled.extend(cancel.map(|cancel| PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN)));
    // An interrupted poll is one more turn of the caller's loop.
    poll(&mut polled, left.as_ref()).is_ok() && !polled[0].revents().is_empty()
}

/// Asks the child's group to end. Before the launcher has made its session, there is only the child itself.
fn ask_to_end(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    // The child is not reaped, so its number is its own. That it is dead already is no failure.
    if kill_process_group(pid, Signal::TERM).is_err() {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn reap(child: &mut Child) -> Ending {
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Stuck,
        },
        Err(_) => Ending::Stuck,
    }
}

#[cfg(test)]
#[path = "tool_tests.rs"]
pub(crate) mod tests;
