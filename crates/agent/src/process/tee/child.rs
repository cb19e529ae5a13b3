//! The process that becomes a step: started through `chroot-exec`, signalled with its whole group, and reaped.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::process::chroot_exec::SUBCOMMAND;
use crate::process::control_data::ControlData;

/// The helper takes its control data within this; it does nothing else until then.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(30);

/// The program that has the hidden subcommand.
#[derive(Debug, Clone)]
pub struct Helper(PathBuf);

impl Helper {
    /// This very program, as it runs: also where its file was replaced or removed meanwhile. It needs /proc.
    pub fn this_program() -> Helper {
        Helper("/proc/self/exe".into())
    }

    /// Another program that has the subcommand.
    pub fn other(program: impl Into<PathBuf>) -> Helper {
        Helper(program.into())
    }
}

/// A process that runs, and our ends of its pipes.
pub(super) struct Started {
    pub(super) step: StepProcess,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The process of a step.
pub(super) struct StepProcess {
    child: Child,
    /// Readable once it has ended; none on a kernel that has no such handles.
    handle: Option<OwnedFd>,
    /// Over which it says why the program could not be started.
    socket: UnixStream,
}

/// A process that waits to be told which step it is: in a process group of its own, and nothing else yet. It ends when
/// this is dropped.
pub(super) struct Waiting(Option<Started>);

impl Waiting {
    /// Starts it.
    pub(super) fn start(helper: &Helper) -> Result<Waiting, String> {
        let plumbing = |error: io::Error| format!("make its pipes: {error}");
        let (stdout, for_stdout) = io::pipe().map_err(plumbing)?;
        let (stderr, for_stderr) = io::pipe().map_err(plumbing)?;
        let (socket, for_child) = UnixStream::pair().map_err(plumbing)?;
        socket.set_write_timeout(Some(HANDOVER_PATIENCE)).map_err(plumbing)?;
        // Our ends of the other side close with the command, at the end of this statement.
        let child = Command::new(&helper.0)
            .arg(SUBCOMMAND)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(for_child)))
            .stdout(for_stdout)
            .stderr(for_stderr)
            .spawn()
            .map_err(|error| helper_failure(helper, &error))?;
        let handle = Pid::from_raw(child.id().cast_signed()).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let step = StepProcess { child, handle: handle.and_then(Result::ok), socket };
        Ok(Waiting(Some(Started { step, stdout: stdout.into(), stderr: stderr.into() })))
    }

    /// Itself where it still waits: somebody may have ended it.
    pub(super) fn if_there(mut self) -> Option<Waiting> {
        let ended = self.0.as_mut().and_then(|started| started.step.ended());
        ended.is_none().then_some(self)
    }

    /// Tells it which step it is. `record` is told its process id before.
    pub(super) fn become_step(
        mut self,
        data: &ControlData,
        record: &mut dyn FnMut(u32) -> io::Result<()>,
    ) -> Result<Started, String> {
        let encoded = data.encode()?;
        let started = self.0.as_mut().expect("it is taken only where it becomes a step");
        record(started.step.child.id()).map_err(|error| {
            format!("it was not let go, because it could not be written down that it runs: {error}")
        })?;
        let told = started.step.socket.write_all(&encoded);
        told.map_err(|error| format!("hand over what to run: {error}"))?;
        Ok(self.0.take().expect("it is taken only here"))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(started) = &mut self.0 {
            started.step.abandon();
        }
    }
}

/// Starts a step. `record` is told its process id before the program is known to it.
pub(super) fn start(
    helper: &Helper,
    data: &ControlData,
    record: &mut dyn FnMut(u32) -> io::Result<()>,
) -> Result<Started, String> {
    Waiting::start(helper)?.become_step(data, record)
}

fn helper_failure(helper: &Helper, error: &io::Error) -> String {
    let program = helper.0.display();
    if error.kind() == io::ErrorKind::NotFound && helper.0.starts_with("/proc") {
        return format!("the agent starts steps through {program}, and /proc is not mounted: {error}");
    }
    format!("the agent could not start itself as {program}: {error}")
}

impl StepProcess {
    /// Readable once it has ended.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Its exit status, or the negative number of the signal that ended it; none while it runs.
    pub(super) fn ended(&mut self) -> Option<i32> {
        // It is our child and not yet waited for, so that the call cannot fail; if it did, there would be no child.
        let status = self.child.try_wait().ok()??;
        status.code().or_else(|| status.signal().map(|signal| -signal))
    }

    /// Sends a signal to its whole group. That it is gone meanwhile is no failure.
    pub(super) fn signal_group(&self, signal: Signal) {
        // The child is not reaped, so that its number, which is its group's too, is its own.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _gone_already = kill_process_group(pid, signal);
        }
    }

    /// Waits until it has become its program, or has said why it does not. True where it has: exec closed its end of the
    /// socket. Nobody's wish to end is heeded meanwhile, which is short: a signal that came before exec would end what looks
    /// afterwards as if it had been the program.
    pub(super) fn has_become_program(&self) -> bool {
        let until = Instant::now() + HANDOVER_PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            let time = Timespec::try_from(left).ok();
            // Interrupted or not: what is so is looked at below.
            let _asked_below = poll(&mut polled, time.as_ref());
            let mut byte = [0];
            let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            match recv(&self.socket, &mut byte[..], peek) {
                Ok((_, said)) => return said == 0,
                Err(Errno::AGAIN | Errno::INTR) if !left.is_zero() => {}
                Err(_) => return false,
            }
        }
    }

    /// After its end: why the program could not be started, where it was not.
    pub(super) fn refusal(&mut self) -> Option<String> {
        self.socket.set_nonblocking(true).ok()?;
        let mut said = Vec::new();
        // It ends with the process, or would block where something that is not ours still holds it.
        let _as_far_as_it_goes = self.socket.read_to_end(&mut said);
        (!said.is_empty()).then(|| String::from_utf8_lossy(&said).into_owned())
    }

    /// Ends it before it has become anything.
    fn abandon(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
