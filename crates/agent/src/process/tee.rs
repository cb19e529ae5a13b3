//! Runs the steps of a package, one after the other, and hands on what they print: stamped, to the agent's own streams
//! and to a log file each.
//!
//! One [`Tee`] lives as long as the agent. [`Tee::run`] blocks for one step and is one plain loop around poll(2): the
//! step's two pipes, its end, the handle by which the agent is asked to end, and the agent's own streams where they
//! have no room. Whatever is read is on its way to every sink before the next wait. Where the agent's own stream has no
//! room, its step's pipe is not read either; the rest goes on.
//!
//! A process that a step leaves behind may hold its output. It is waited for 2 s, then that is said; what it prints is
//! still read and handed on while later steps run, so that it neither blocks nor dies of a closed pipe.

mod ask;
mod child;
mod life;
mod sink;
mod stream;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use ask::{AskError, WhenAsked};
pub use child::Helper;
pub use sink::{Log, ParentStream};

use super::cancel::Cancel;
use super::chroot_exec::{NOT_STARTED, one_line};
use super::control_data::ControlData;
use super::local_time::LocalTime;
use super::stamper::Label;
use child::{Started, StepProcess, Waiting};
use life::Life;
use sink::BLOCKED_PATIENCE;
use stream::Stream;

/// A step's output may stay open for this long after its end: something else holds it then.
const HELD_PATIENCE: Duration = Duration::from_secs(2);
/// Streams of processes left behind that are read at a time. With more, the oldest is closed.
const LEFT_MAX: usize = 128;
/// How often it is looked whether a step has ended, on a kernel whose processes cannot be waited for with poll(2).
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Rounds in which [`Tee::drain`] takes what is there: a process that prints without end must not hold it up.
const DRAIN_ROUNDS_MAX: u32 = 64;

/// One step or one command of an interrupt.
pub struct Command<'a> {
    /// What to run, and where.
    pub program: ControlData,
    /// First write the command, its words joined with spaces, as a line without a stamp to the standard output and its
    /// log: interrupts do.
    pub write_command: bool,
    /// The log of its standard output.
    pub stdout_log: Option<Log>,
    /// The log of its standard error.
    pub stderr_log: Option<Log>,
    /// How long it may go on once the agent is asked to end, where that is another time than the tee's.
    pub term_grace: Option<Duration>,
    /// Told the process id before the program starts, which it does not where this fails. A step that outlives a
    /// killed agent can be found by it.
    pub record: &'a mut dyn FnMut(u32) -> io::Result<()>,
    /// Told once the program runs, where somebody wants to know: that is waited for.
    pub started: Option<&'a mut dyn FnMut()>,
    /// How long it may run. Past it, its group is ended as it is when the agent is asked to end, without a grace.
    pub time_max: Option<Duration>,
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or the negative number of the signal that ended it (SIGTERM: -15). 1 where it did not start.
    pub exit: i32,
    /// Why it could not be started at all. Its standard error has that as a line.
    pub not_started: Option<String>,
    /// It ended after the agent had signalled it: itself asked to end, or because of [`Ended::too_late`].
    pub ended_by_us: bool,
    /// It had run for as long as it may by the time that it was signalled.
    pub too_late: bool,
    /// What must be said besides.
    pub notes: Vec<Note>,
}

/// Something that went wrong beside the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A sink takes no more. It is said once for each.
    SinkFailed {
        /// `stdout`, `stderr`, or `the log PATH`.
        sink: String,
        /// Why.
        cause: String,
        /// What it has missed so far.
        bytes_missing: u64,
    },
    /// Something that outlived the step holds this stream open.
    OutputHeld(Label),
    /// More processes were left behind than are read: this stream, of an earlier step, was closed.
    OutputClosed(Label),
    /// The step was killed and hangs in the kernel.
    Stuck,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |label: &Label| match label {
            Label::Out => "standard output",
            Label::Err => "standard error",
        };
        match self {
            Note::SinkFailed { sink, cause, bytes_missing } => {
                write!(f, "{sink}: {cause}; {bytes_missing} bytes of the step's output are missing there")
            }
            Note::OutputHeld(label) => write!(
                f,
                "a process that the step left behind holds its {} open; it is waited for no longer",
                name(label)
            ),
            Note::OutputClosed(label) => write!(
                f,
                "more than {LEFT_MAX} outputs are held open by processes left behind; the oldest, a {}, was closed",
                name(label)
            ),
            Note::Stuck => f.write_str("the step was killed and hangs in the kernel"),
        }
    }
}

/// Runs steps and hands on what they print.
pub struct Tee {
    helper: Helper,
    term_grace: Duration,
    cancel: Cancel,
    stdout: ParentStream,
    stderr: ParentStream,
    time: LocalTime,
    /// As large as a read may be.
    buffer: Vec<u8>,
    /// What earlier steps left behind.
    left: Vec<Stream>,
    /// For the next step.
    waiting: Option<Waiting>,
}

/// What a tee is made with.
pub struct Settings {
    /// Through what steps are started.
    pub helper: Helper,
    /// Bytes that each read asks for, at least one (`SKYHOOK_AGENT_BUFFER_LIMIT`). A read gives no more than the pipe holds,
    /// 256 KiB unless the step itself has made it larger.
    pub read_bytes: usize,
    /// Time that a running step has once the agent is asked to end (`SKYHOOK_AGENT_TERM_GRACE_S`), unless its command
    /// says otherwise.
    pub term_grace: Duration,
    /// By which the agent is asked to end.
    pub cancel: Cancel,
}

/// A step that runs or has just ended.
struct Running {
    step: Option<StepProcess>,
    life: Life,
    term_grace: Duration,
    /// Until then it may run.
    time_up: Option<Instant>,
    too_late: bool,
    streams: [Stream; 2],
    end: Option<End>,
    /// The agent is to end and the step has ended: until then, what was read may still be taken.
    give_up_at: Option<Instant>,
    notes: Vec<Note>,
}

/// The end of a step's process, whose output may still come.
struct End {
    exit: i32,
    not_started: Option<String>,
    held_until: Instant,
    /// What the streams had been given by then.
    bytes_written: [u64; 2],
}

impl Tee {
    /// A tee that writes to these streams.
    pub fn new(settings: Settings, stdout: ParentStream, stderr: ParentStream) -> Tee {
        Tee {
            helper: settings.helper,
            term_grace: settings.term_grace,
            cancel: settings.cancel,
            stdout,
            stderr,
            time: LocalTime::of_system(),
            // Of a large one only as much is ever resident as a read has filled.
            buffer: vec![0; settings.read_bytes.max(1)],
            left: Vec::new(),
            waiting: None,
        }
    }

    /// For the agent's own messages on standard output, between steps.
    pub fn stdout(&mut self) -> &mut ParentStream {
        &mut self.stdout
    }

    /// For the agent's own messages on standard error, between steps.
    pub fn stderr(&mut self) -> &mut ParentStream {
        &mut self.stderr
    }

    /// Runs one step to its end. What cannot be started is an end as well: exit 1, with a line on its standard error.
    pub fn run(&mut self, command: Command<'_>) -> Ended {
        self.run_step(command, false)
    }

    /// As [`Tee::run`], where another step is likely to follow: its process is started while this one runs, so that it need
    /// not be waited for.
    pub fn run_before_another(&mut self, command: Command<'_>) -> Ended {
        self.run_step(command, true)
    }

    fn run_step(&mut self, command: Command<'_>, another_follows: bool) -> Ended {
        let Command { program, write_command, stdout_log, stderr_log, term_grace, record, started, time_max } =
            command;
        let mut streams = [Stream::new(Label::Out, stdout_log), Stream::new(Label::Err, stderr_log)];
        if write_command {
            let words: Vec<&[u8]> = program.argv.iter().map(|word| word.as_bytes()).collect();
            let mut line = words.join(&b' ');
            line.push(b'\n');
            streams[0].say_plain(&line, &mut self.stdout);
        }
        let mut running = Running {
            step: None,
            life: Life::Running,
            term_grace: term_grace.unwrap_or(self.term_grace),
            time_up: time_max.and_then(|time| Instant::now().checked_add(time)),
            too_late: false,
            streams,
            end: None,
            give_up_at: None,
            notes: Vec::new(),
        };
        if let Err(cause) = self.start(&program, record, &mut running) {
            let name = program.argv.first().map(|name| name.display().to_string()).unwrap_or_default();
            let sentence = one_line(&format!("could not start {name}: {cause}"));
            let line = format!("groundcrew: {sentence}");
            running.streams[1].say_stamped(&line, &mut self.time, &mut self.stderr);
            running.step = None;
            running.end(i32::from(NOT_STARTED), Some(sentence));
        }
        if let (Some(started), Some(step)) = (started, &running.step)
            && step.has_become_program()
        {
            started();
        }
        if another_follows && !self.cancel.is_asked() {
            // Without it the next step starts its own, and says what prevents that.
            self.waiting = Waiting::start(&self.helper).ok();
        }
        while !running.is_over() {
            self.turn(&mut running);
        }
        self.part(running)
    }

    /// Hands on what processes left behind have printed, without waiting for more.
    pub fn drain(&mut self) {
        for _round in 0..DRAIN_ROUNDS_MAX {
            if !self.wait(None, false, Some(Duration::ZERO)) {
                break;
            }
        }
    }

    fn start(
        &mut self,
        program: &ControlData,
        record: &mut dyn FnMut(u32) -> io::Result<()>,
        running: &mut Running,
    ) -> Result<(), String> {
        let waiting = self.waiting.take().and_then(Waiting::if_there);
        let waiting = waiting.map_or_else(|| Waiting::start(&self.helper), Ok)?;
        let Started { step, stdout, stderr } = waiting.become_step(program, record)?;
        running.step = Some(step);
        let [out, err] = &mut running.streams;
        out.open(stdout).and_then(|()| err.open(stderr)).map_err(|error| format!("read its output: {error}"))
    }

    /// One wait, and all that it brought.
    fn turn(&mut self, running: &mut Running) {
        // Looked at once: a wait must watch for what its deadline does not allow for.
        let (now, asked) = (Instant::now(), self.cancel.is_asked());
        Self::advance(running, asked, now);
        let until = running.until();
        if running.give_up_at.is_some_and(|at| now >= at) {
            self.give_up_blocked(running);
        }
        let look = running.step.as_ref().is_some_and(|step| step.handle().is_none()).then_some(LOOK_INTERVAL);
        let left = until.map(|until| until.saturating_duration_since(now)).into_iter().chain(look).min();
        self.wait(Some(running), !asked, left);
        running.reap();
    }

    /// What the time and the asking alone bring.
    fn advance(running: &mut Running, asked: bool, now: Instant) {
        if running.end.is_some() {
            if asked {
                running.give_up_at.get_or_insert(now + BLOCKED_PATIENCE);
            }
            return;
        }
        let time_is_up = running.time_up.is_some_and(|at| now >= at);
        let grace = if time_is_up { Duration::ZERO } else { running.term_grace };
        let (life, signal) = running.life.next(asked || time_is_up, now, grace);
        running.life = life;
        running.too_late |= time_is_up && signal.is_some();
        if let (Some(signal), Some(step)) = (signal, &running.step) {
            step.signal_group(signal);
        }
        if life == Life::Stuck {
            running.notes.push(Note::Stuck);
            running.end(-rustix::process::Signal::KILL.as_raw(), None);
        }
    }

    /// Waits until something can go on, and lets it. False where nothing could.
    fn wait(&mut self, running: Option<&mut Running>, for_asking: bool, left: Option<Duration>) -> bool {
        // A deadline past what the kernel can count is none.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(8);
        let own = running.as_deref().map_or(&[][..], |running| &running.streams);
        let mut ready = Vec::with_capacity(own.len() + self.left.len());
        for stream in own.iter().chain(&self.left) {
            let interest = stream.interest(parent(stream.label(), &self.stdout, &self.stderr));
            ready.push(interest.is_some());
            polled.extend(interest.map(|(file, flags)| PollFd::from_borrowed_fd(file, flags)));
        }
        // Once asked, the handle stays readable: from then on only deadlines count.
        if for_asking {
            polled.push(PollFd::from_borrowed_fd(self.cancel.as_fd(), PollFlags::IN));
        }
        if let Some(running) = running.as_deref() {
            let handle = running.step.as_ref().and_then(StepProcess::handle);
            polled.extend(handle.map(|handle| PollFd::from_borrowed_fd(handle, PollFlags::IN)));
        }
        // Interrupted, or the kernel has no memory for it: nothing is ready, and the next turn asks anew.
        let any = poll(&mut polled, left.as_ref()).is_ok_and(|count| count > 0);
        let mut found = polled.iter().map(|polled| any && !polled.revents().is_empty());
        for ready in &mut ready {
            *ready = *ready && found.next().unwrap_or(false);
        }
        let own = running.map_or(&mut [][..], |running| &mut running.streams);
        for (stream, _ready) in own.iter_mut().chain(&mut self.left).zip(ready).filter(|(_, ready)| *ready) {
            let parent = match stream.label() {
                Label::Out => &mut self.stdout,
                Label::Err => &mut self.stderr,
            };
            stream.go_on(&mut self.buffer, &mut self.time, parent);
        }
        self.left.retain(|stream| stream.is_open() || stream.is_pending());
        any
    }

    /// The agent is to end, its step has ended, and nobody reads what is still to be written.
    fn give_up_blocked(&mut self, running: &mut Running) {
        let pending = running.streams.iter_mut().chain(&mut self.left).filter(|stream| stream.is_pending());
        for stream in pending {
            let parent = match stream.label() {
                Label::Out => &mut self.stdout,
                Label::Err => &mut self.stderr,
            };
            parent.give_up();
            // It takes everything now, and counts it as missing.
            stream.go_on(&mut self.buffer, &mut self.time, parent);
        }
    }

    /// Keeps what is still open, and says how it went.
    fn part(&mut self, running: Running) -> Ended {
        let Running { life, too_late, streams, end, mut notes, .. } = running;
        let end = end.expect("a step that is over has an end");
        for mut stream in streams {
            notes.extend(stream.note());
            if stream.is_open() {
                notes.push(Note::OutputHeld(stream.label()));
                self.left.push(stream);
            }
        }
        if self.left.len() > LEFT_MAX {
            let closed = self.left.drain(..self.left.len() - LEFT_MAX);
            notes.extend(closed.map(|stream| Note::OutputClosed(stream.label())));
        }
        notes.extend(self.stdout.note());
        notes.extend(self.stderr.note());
        let ended_by_us = life.was_signalled();
        Ended { exit: end.exit, not_started: end.not_started, ended_by_us, too_late, notes }
    }
}

fn parent<'a>(label: Label, stdout: &'a ParentStream, stderr: &'a ParentStream) -> &'a ParentStream {
    match label {
        Label::Out => stdout,
        Label::Err => stderr,
    }
}

impl Running {
    fn end(&mut self, exit: i32, not_started: Option<String>) {
        let [out, err] = &self.streams;
        let bytes_written = [out.bytes_written(), err.bytes_written()];
        let held_until = Instant::now() + HELD_PATIENCE;
        self.end = Some(End { exit, not_started, held_until, bytes_written });
    }

    fn reap(&mut self) {
        if self.end.is_none()
            && let Some(step) = &mut self.step
            && let Some(exit) = step.ended()
        {
            let refusal = step.refusal();
            self.step = None;
            self.end(exit, refusal);
        }
    }

    /// Every stream has ended and been taken; or what the step itself wrote has, and the rest was waited for.
    fn is_over(&self) -> bool {
        let Some(end) = &self.end else { return false };
        let waited = Instant::now() >= end.held_until;
        self.streams.iter().zip(end.bytes_written).all(|(stream, written)| {
            !stream.is_pending() && (!stream.is_open() || waited && stream.bytes_read() >= written)
        })
    }

    /// When to look again though nothing happens.
    fn until(&self) -> Option<Instant> {
        let Some(end) = &self.end else {
            let time_up = self.time_up.filter(|_| self.life == Life::Running);
            return self.life.until().or(time_up);
        };
        // A reader who takes nothing is waited for without end, unless the agent is to end.
        if self.streams.iter().any(Stream::is_pending) { self.give_up_at } else { Some(end.held_until) }
    }
}
