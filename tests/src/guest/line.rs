//! The line to the hand of a guest: commands go out, ends and hellos come in. One lasts as long as a QEMU does, over
//! all reboots of its guest.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::STUCK;
use super::words::{Answer, Request, Told};

/// Why a command has no end to tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The guest started again before it was told.
    Rebooted,
    /// The machine is off.
    Off,
    /// Neither its end nor another boot came within [`STUCK`].
    Silent,
}

#[derive(Debug, Default)]
struct Heard {
    hellos: Vec<String>,
    answers: BTreeMap<u64, Answer>,
    is_closed: bool,
}

/// What the reader of the line and those who wait share.
#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Heard>,
    more: Condvar,
}

impl Ear {
    fn listen(&self, stream: UnixStream) {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            // What does not parse was cut off by a reboot in the middle of its line.
            let Ok(told) = serde_json::from_slice(&line) else { continue };
            let mut heard = self.heard.lock().expect("no holder of this lock panics");
            match told {
                Told::Hello { boot } => heard.hellos.push(boot),
                Told::Answer(answer) => drop(heard.answers.insert(answer.id, answer)),
            }
            self.more.notify_all();
        }
        self.heard.lock().expect("no holder of this lock panics").is_closed = true;
        self.more.notify_all();
    }

    /// Waits until `ask` has an answer; nothing where it never comes.
    fn wait<T>(&self, mut ask: impl FnMut(&mut Heard) -> Option<T>) -> Option<T> {
        let until = Instant::now() + STUCK;
        let mut heard = self.heard.lock().expect("no holder of this lock panics");
        loop {
            if let Some(answer) = ask(&mut heard) {
                return Some(answer);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            heard = self.more.wait_timeout(heard, left).expect("no holder of this lock panics").0;
        }
    }
}

/// The line to one QEMU's guest.
#[derive(Debug)]
pub struct Line {
    out: Mutex<(UnixStream, u64)>,
    ear: Arc<Ear>,
}

impl Line {
    /// Takes a connection that QEMU has made.
    pub fn new(stream: UnixStream) -> Line {
        let ear = Arc::new(Ear::default());
        let (of_ear, incoming) = (ear.clone(), stream.try_clone().expect("a socket can be cloned"));
        std::thread::spawn(move || of_ear.listen(incoming));
        stream.set_write_timeout(Some(STUCK)).expect("the time-out is not zero");
        Line { out: Mutex::new((stream, 0)), ear }
    }

    /// Waits for a boot other than `before`; nothing where none comes.
    pub fn next_boot(&self, before: Option<&str>) -> Option<String> {
        let other = |heard: &mut Heard| match heard.hellos.last() {
            Some(boot) if Some(boot.as_str()) != before => Some(Some(boot.clone())),
            Some(_) | None => heard.is_closed.then_some(None),
        };
        self.ear.wait(other).flatten()
    }

    /// Runs a command on the boot that it is meant for. Its id is given here.
    ///
    /// # Errors
    /// Where its end is never told.
    pub fn run(&self, mut request: Request) -> Result<Answer, Lost> {
        let (id, sent) = {
            let mut out = self.out.lock().expect("no holder of this lock panics");
            out.1 += 1;
            request.id = out.1;
            let line = serde_json::to_string(&request).expect("a request is JSON") + "\n";
            (request.id, out.0.write_all(line.as_bytes()))
        };
        if sent.is_err() {
            return Err(Lost::Off);
        }
        let ended = self.ear.wait(|heard| {
            if let Some(answer) = heard.answers.remove(&id) {
                Some(Ok(answer))
            } else if heard.is_closed {
                Some(Err(Lost::Off))
            } else {
                heard.hellos.last().is_some_and(|boot| *boot != request.boot).then_some(Err(Lost::Rebooted))
            }
        });
        ended.unwrap_or(Err(Lost::Silent))
    }
}
