//! A program that is asked something: what it prints is the answer, and is handed on to nobody.
//!
//! It is a few words from a program that may hang, or be another than one thinks: little of it is kept, and one that
//! has not ended in time is killed with its group.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::child::{self, Started, StepProcess};
use super::{ControlData, LOOK_INTERVAL, Tee};

/// As much of an answer as is kept; the rest is read and dropped.
const ANSWER_BYTES_MAX: usize = 4096;
/// A killed program is gone within this, or hangs in the kernel and is left there.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It could not be started; why.
    #[error("{0}")]
    NotStarted(String),
    /// It had not ended in time, and was killed.
    #[error("it gave no answer in {0:?}")]
    TooLate(Duration),
    /// The agent was asked to end meanwhile.
    #[error("the agent is to end")]
    Cancelled,
}

/// What becomes of a question where the agent is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAsked {
    /// It is given up.
    GiveUp,
    /// The answer is waited for all the same.
    GoOn,
}

impl Tee {
    /// Runs a program for what it prints on its standard output, whatever its exit status. What it prints on its
    /// standard error is dropped.
    ///
    /// # Errors
    /// Where it cannot be started, does not end within `patience`, or the agent is asked to end and that counts.
    pub fn ask(
        &self,
        program: &ControlData,
        patience: Duration,
        when_asked: WhenAsked,
    ) -> Result<String, AskError> {
        let until = Instant::now() + patience;
        let Started { mut step, stdout, stderr } =
            child::start(&self.helper, program, &mut |_pid| Ok(())).map_err(AskError::NotStarted)?;
        let (mut answer, mut dropped) = (Answer::to(stdout), Answer::to(stderr));
        loop {
            if step.ended().is_some() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            let heeds = when_asked == WhenAsked::GiveUp;
            let why = match (heeds && self.cancel.is_asked(), left.is_zero()) {
                (true, _) => AskError::Cancelled,
                (false, true) => AskError::TooLate(patience),
                (false, false) => {
                    let cancel = heeds.then(|| self.cancel.as_fd());
                    wait(&step, [&mut answer, &mut dropped], cancel, left);
                    continue;
                }
            };
            end(&mut step, &mut answer, &mut dropped);
            return Err(why);
        }
        if let Some(why) = step.refusal() {
            return Err(AskError::NotStarted(why));
        }
        // What it wrote lies in the pipe. Something that it left behind may hold that open, and is not waited for.
        answer.read();
        Ok(String::from_utf8_lossy(&answer.kept).into_owned())
    }
}

/// Kills it with its group, and reaps it.
fn end(step: &mut StepProcess, answer: &mut Answer, dropped: &mut Answer) {
    let until = Instant::now() + KILL_PATIENCE;
    step.signal_group(Signal::KILL);
    while step.ended().is_none() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        wait(step, [&mut *answer, &mut *dropped], None, left);
    }
}

/// Waits for its end, for output, which is read, or for the agent to be asked to end; at most so long.
fn wait(step: &StepProcess, mut outputs: [&mut Answer; 2], cancel: Option<BorrowedFd<'_>>, left: Duration) {
    let left = if step.handle().is_none() { left.min(LOOK_INTERVAL) } else { left };
    let left = Timespec::try_from(left).ok();
    let watched = outputs.iter().filter_map(|output| output.pipe.as_ref()).map(AsFd::as_fd);
    let mut polled: Vec<PollFd<'_>> = watched
        .chain(step.handle())
        .chain(cancel)
        .map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN))
        .collect();
    // Interrupted or not: what can be read is read, and the caller asks all again.
    let _asked_below = poll(&mut polled, left.as_ref());
    drop(polled);
    for output in &mut outputs {
        output.read();
    }
}

/// What comes out of one stream.
struct Answer {
    /// Until it has ended.
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Answer {
    fn to(pipe: OwnedFd) -> Answer {
        // A pipe that cannot be read without waiting is not read at all.
        let pipe = rustix::io::ioctl_fionbio(&pipe, true).is_ok().then(|| pipe.into());
        Answer { pipe, kept: Vec::new() }
    }

    /// Takes what is there.
    fn read(&mut self) {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let room = ANSWER_BYTES_MAX - self.kept.len();
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }
}
