//! Processes that a test starts: their output line by line, their end, and handles on processes of others.

use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

use super::{STUCK, Terminal};

/// What a process has said so far.
#[derive(Debug)]
struct Said {
    /// Its lines, and how many of its streams have ended.
    lines: Mutex<(Vec<String>, usize)>,
    more: Condvar,
    streams: usize,
}

impl Said {
    /// Reads from all of them at once, up to one of the bytes that end a line.
    fn read(streams: Vec<Box<dyn Read + Send>>, ends: &'static [u8]) -> Arc<Said> {
        let count = streams.len();
        let said = Arc::new(Said { lines: Mutex::default(), more: Condvar::new(), streams: count });
        for stream in streams {
            let said = said.clone();
            std::thread::spawn(move || said.take(stream, ends));
        }
        said
    }

    fn take(&self, stream: impl Read, ends: &[u8]) {
        let mut line = Vec::new();
        // An error is an end, too: a terminal that nobody has open any more has that one.
        for byte in BufReader::new(stream).bytes().map_while(Result::ok) {
            if ends.contains(&byte) {
                self.tell(&std::mem::take(&mut line));
            } else {
                line.push(byte);
            }
        }
        if !line.is_empty() {
            self.tell(&line);
        }
        self.lines.lock().expect("no holder of this lock panics").1 += 1;
        self.more.notify_all();
    }

    fn tell(&self, line: &[u8]) {
        let mut lines = self.lines.lock().expect("no holder of this lock panics");
        lines.0.push(String::from_utf8_lossy(line).into_owned());
        self.more.notify_all();
    }
}

/// Starts it so that it dies with its test.
fn spawn(name: &str, command: &mut Command) -> Child {
    // SAFETY: between fork and exec this makes one system call (prctl), which is safe after a signal, too.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"))
}

/// A process that dies with its test.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    handle: Handle,
    said: Arc<Said>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it, with both output streams read into [`lines`](Self::lines).
    pub fn start(name: &str, command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(name, command);
        let (out, err) =
            (child.stdout.take().expect("it is a pipe"), child.stderr.take().expect("it is a pipe"));
        Process::of(name, child, Said::read(vec![Box::new(out), Box::new(err)], b"\n"))
    }

    /// Starts it on a terminal. What is drawn anew begins at the left: a line is then a whole picture, with all that steers
    /// the terminal.
    pub fn start_on_terminal(name: &str, mut command: Command, size: (u16, u16)) -> (Process, Terminal) {
        let terminal = Terminal::with(&mut command, size);
        let child = spawn(name, &mut command);
        // It holds the program's side of the terminal, which must end with the program.
        drop(command);
        (Process::of(name, child, Said::read(vec![Box::new(terminal.output())], b"\r\n")), terminal)
    }

    fn of(name: &str, child: Child, said: Arc<Said>) -> Process {
        let handle = Handle::on(i32::try_from(child.id()).expect("process numbers fit an i32"));
        Process { name: name.to_owned(), child, handle, said, ended: None }
    }

    /// What it has said so far, both streams as they came.
    pub fn lines(&self) -> Vec<String> {
        self.said.lines.lock().expect("no holder of this lock panics").0.clone()
    }

    /// Waits for a line that holds `part`; the first such one.
    pub fn wait_for_line(&self, part: &str) -> String {
        let until = Instant::now() + STUCK;
        let mut lines = self.said.lines.lock().expect("no holder of this lock panics");
        loop {
            if let Some(line) = lines.0.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            let is_closed = lines.1 == self.said.streams;
            if is_closed || left.is_zero() {
                let said = lines.0.join("\n");
                drop(lines);
                panic!("{} never said {part:?}; it said:\n{said}", self.name);
            }
            lines = self.said.more.wait_timeout(lines, left).expect("no holder of this lock panics").0;
        }
    }

    /// How many of its lines hold `part`.
    pub fn count_of(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.handle.pid
    }

    /// True while it has not ended.
    pub fn is_alive(&self) -> bool {
        self.ended.is_none() && !self.handle.is_gone()
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // It fails only where it has ended, which is what was wanted.
            let _ended = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// What becomes readable once it has ended; absent where it was gone before it could be taken hold of.
    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.handle.fd.as_ref().map(AsFd::as_fd)
    }

    /// Asks it to end.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.handle.pid).expect("a process has a number above 0");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signalling {}: {error}", self.name));
    }

    /// Waits for its end and for the last of its output.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(ended) = self.ended {
            return ended;
        }
        if !self.handle.ends_within(STUCK) {
            panic!("{} does not end; it said:\n{}", self.name, self.lines().join("\n"));
        }
        let status = self.child.wait().expect("an ended child can be waited for");
        self.ended = Some(status);
        let lines = self.said.lines.lock().expect("no holder of this lock panics");
        let all_read = self
            .said
            .more
            .wait_timeout_while(lines, STUCK, |lines| lines.1 < self.said.streams)
            .expect("see above");
        assert!(!all_read.1.timed_out(), "something holds the output of {} open", self.name);
        status
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> ExitStatus {
        if self.ended.is_none() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let lines = self.lines();
            let from = lines.len().saturating_sub(60);
            eprintln!("---- {} said at last:\n{}", self.name, lines[from..].join("\n"));
        }
    }
}

/// A handle on a process, whoever started it: its number cannot come to mean another.
#[derive(Debug)]
pub struct Handle {
    pid: i32,
    /// Absent where it was gone before it could be taken hold of.
    fd: Option<OwnedFd>,
}

impl Handle {
    /// Takes hold of a process.
    pub fn on(pid: i32) -> Handle {
        let number = Pid::from_raw(pid).expect("a process has a number above 0");
        Handle { pid, fd: pidfd_open(number, PidfdFlags::empty()).ok() }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        // It fails only where the process has ended, whose number may be another's by now.
        let _ended = self.fd.as_ref().map(|fd| pidfd_send_signal(fd, signal));
    }

    /// True once it has ended.
    pub fn is_gone(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for its end.
    pub fn wait_gone(&self) {
        assert!(self.ends_within(STUCK), "process {} never ended", self.pid);
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let Some(fd) = &self.fd else { return true };
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("two minutes fit");
            match poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&left)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("polling process {}: {error}", self.pid),
            }
        }
    }
}
