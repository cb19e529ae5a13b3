//! The thread that reads a child's output: it polls both pipes, keeps what was asked for, and hands on lines.
//!
//! It may be held up by whoever takes the lines; the thread that watches the child's deadline is another.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::lines::LineSplitter;
use super::tool::{Captured, Lines, Output};

/// Bytes that one read may give: a pipe holds as much.
const READ_BYTES: usize = 64 * 1024;
/// How often a wait for the reader looks whether the taker of lines still holds it up.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// One of a child's two streams.
struct Stream {
    pipe: Option<File>,
    output: Output,
    splitter: LineSplitter,
    bytes_max: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The reader is inside the call that hands on a line.
    handing_on: AtomicBool,
}

#[derive(Default)]
struct State {
    stdout: Captured,
    stderr: Captured,
    finished: bool,
}

/// How a wait for the reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// Both streams have ended and every line was handed on.
    Ended,
    /// A stream is open and silent: something holds it.
    HeldOpen,
    /// Whoever takes the lines does not come back.
    HeldUp,
}

/// The reader of one child. Dropping it ends the reading: whoever still writes gets SIGPIPE.
pub(super) struct Reader {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
}

impl Reader {
    /// Starts reading both pipes, keeping at most so many bytes of each.
    pub(super) fn start(
        stdout: OwnedFd,
        stderr: OwnedFd,
        bytes_max: (usize, usize),
        lines: Lines,
    ) -> std::io::Result<Reader> {
        let shared = Arc::new(Shared::default());
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stream = |pipe: OwnedFd, output, bytes_max| Stream {
            pipe: Some(pipe.into()),
            output,
            splitter: LineSplitter::default(),
            bytes_max,
        };
        let streams =
            [stream(stdout, Output::Stdout, bytes_max.0), stream(stderr, Output::Stderr, bytes_max.1)];
        let (for_thread, stop_for_thread) = (Arc::clone(&shared), Arc::clone(&stop));
        std::thread::Builder::new().name("tool-output".into()).spawn(move || {
            // The waiter must hear of the end however it comes about.
            let _finished = Finished(Arc::clone(&for_thread));
            run(streams, &for_thread, &stop_for_thread, &lines);
        })?;
        Ok(Reader { shared, stop })
    }

    /// Waits until both streams have ended, for `silence_max` in which nothing comes, and for `held_up_max` in which
    /// the taker of lines holds the reader up.
    pub(super) fn wait(&self, silence_max: Duration, held_up_max: Duration) -> Waited {
        let (mut silent, mut held_up) = (Duration::ZERO, Duration::ZERO);
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.finished {
                return Waited::Ended;
            }
            if silent >= silence_max {
                return Waited::HeldOpen;
            }
            if held_up >= held_up_max {
                return Waited::HeldUp;
            }
            let before = state.stdout.bytes_seen + state.stderr.bytes_seen;
            let (next, timeout) = self
                .shared
                .changed
                .wait_timeout(state, LOOK_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            let moved = before != state.stdout.bytes_seen + state.stderr.bytes_seen;
            if !timeout.timed_out() || moved {
                continue;
            }
            if self.shared.handing_on.load(Ordering::SeqCst) {
                held_up += LOOK_INTERVAL;
            } else {
                silent += LOOK_INTERVAL;
            }
        }
    }

    /// What was kept so far.
    pub(super) fn captured(&self) -> (Captured, Captured) {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.stdout.clone(), state.stderr.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It cannot be full: this is the only write.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// Says on drop that the reader has ended.
struct Finished(Arc<Shared>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).finished = true;
        self.0.changed.notify_all();
    }
}

fn run(mut streams: [Stream; 2], shared: &Shared, stop: &OwnedFd, lines: &Lines) {
    let mut buffer = vec![0u8; READ_BYTES];
    while streams.iter().any(|stream| stream.pipe.is_some()) {
        let Some(ready) = wait_for_input(&streams, stop) else { break };
        for (stream, ready) in streams.iter_mut().zip(ready) {
            if ready {
                read_once(stream, &mut buffer, shared, lines);
            }
        }
    }
    for stream in &mut streams {
        if let Some(line) = stream.splitter.finish() {
            hand_on(stream.output, line, shared, lines);
        }
    }
}

/// Which streams can be read without waiting; `None` where the reading is to end.
fn wait_for_input(streams: &[Stream; 2], stop: &OwnedFd) -> Option<[bool; 2]> {
    let open: Vec<(usize, &File)> =
        streams.iter().enumerate().filter_map(|(at, stream)| Some((at, stream.pipe.as_ref()?))).collect();
    let mut polled: Vec<PollFd> =
        open.iter().map(|(_, pipe)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)).collect();
    polled.push(PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN));
    match poll(&mut polled, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Some([false; 2]),
        // Only a lack of kernel memory is left; the pipes close and the child notices.
        Err(_) => return None,
    }
    if !polled[open.len()].revents().is_empty() {
        return None;
    }
    let mut ready = [false; 2];
    for ((at, _), polled) in open.iter().zip(&polled) {
        ready[*at] = !polled.revents().is_empty();
    }
    Some(ready)
}

fn read_once(stream: &mut Stream, buffer: &mut [u8], shared: &Shared, lines: &Lines) {
    let Some(pipe) = &mut stream.pipe else { return };
    let bytes = match pipe.read(buffer) {
        Ok(0) => {
            stream.pipe = None;
            return;
        }
        Ok(count) => &buffer[..count],
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
        Err(_) => {
            stream.pipe = None;
            return;
        }
    };
    {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let captured = match stream.output {
            Output::Stdout => &mut state.stdout,
            Output::Stderr => &mut state.stderr,
        };
        captured.keep(bytes, stream.bytes_max);
    }
    let output = stream.output;
    stream.splitter.push(bytes, |line| hand_on(output, line, shared, lines));
}

fn hand_on(output: Output, line: String, shared: &Shared, lines: &Lines) {
    shared.handing_on.store(true, Ordering::SeqCst);
    lines(output, line);
    shared.handing_on.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_taker_who_does_not_come_back_holds_the_wait_up_no_longer_than_allowed() {
        let (out, mut into_out) = std::io::pipe().unwrap();
        let (err, into_err) = std::io::pipe().unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let lines: Lines = Arc::new(move |_, _| {
            // Ends when the test lets go.
            let _ = gate.lock().unwrap().recv();
        });
        let reader = Reader::start(out.into(), err.into(), (100, 100), lines).unwrap();
        let long = Duration::from_secs(3600);
        assert_eq!(reader.wait(LOOK_INTERVAL, long), Waited::HeldOpen);
        into_out.write_all(b"a line\n").unwrap();
        drop((into_out, into_err));
        assert_eq!(reader.wait(long, LOOK_INTERVAL), Waited::HeldUp);
        drop(release);
        assert_eq!(reader.wait(long, long), Waited::Ended);
        assert_eq!(reader.captured().0.bytes, b"a line\n");
    }
}
