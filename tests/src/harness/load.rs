//! The stand-in for stress-ng: a shell script that waits for a test's word, so that a stage lasts as long as the test
//! wants. It is told over one FIFO and tells over another; the test holds both open, so that neither end ever blocks.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Handle, STUCK, fifo, programs};

const SCRIPT: &str = include_str!("stress-ng.sh");

/// The load of one machine.
#[derive(Debug)]
pub struct Load {
    orders: File,
    told: File,
    /// Told and not asked for yet.
    rest: String,
}

impl Load {
    /// Puts the stand-in into the folder `bin`, and what it is told by into `folder`.
    pub fn install(folder: &Path, bin: &Path) -> Load {
        let place = folder.display().to_string();
        assert!(!place.contains('\''), "a shell script cannot quote {place}");
        let rest = SCRIPT.strip_prefix("#!/bin/sh\n").expect("it is a shell script");
        let path = bin.join("stress-ng");
        programs::write_program(&path, &format!("#!/bin/sh\nhere='{place}'\n{rest}"));
        std::fs::write(folder.join("printed"), "0\n").expect("the folder is ours");
        Load { orders: fifo(&folder.join("orders")), told: fifo(&folder.join("told")), rest: String::new() }
    }

    /// Tells it something; it does so once it runs.
    fn order(&mut self, order: &str) {
        self.orders.write_all(format!("{order}\n").as_bytes()).expect("a FIFO holds a few orders");
    }

    /// What it tells next.
    fn next(&mut self) -> String {
        let until = Instant::now() + STUCK;
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let line = line.to_owned();
                self.rest = rest.to_owned();
                return line;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the load tells nothing more");
            let left = Timespec::try_from(left).expect("two minutes fit");
            // An interrupted poll is one more turn.
            let _ready = poll(&mut [PollFd::from_borrowed_fd(self.told.as_fd(), PollFlags::IN)], Some(&left));
            let mut bytes = [0; 4096];
            if let Ok(count) = self.told.read(&mut bytes) {
                self.rest.push_str(std::str::from_utf8(&bytes[..count]).expect("the script writes ASCII"));
            }
        }
    }

    fn expect(&mut self, word: &str) -> String {
        let line = self.next();
        let rest = line.strip_prefix(word);
        rest.unwrap_or_else(|| panic!("the load said {line:?}, expected {word:?}")).trim().to_owned()
    }

    /// Waits until it runs.
    pub fn started(&mut self) -> Handle {
        Handle::on(self.expect("started").parse().expect("the script says its number"))
    }

    /// True where it tells nothing: it was not started again.
    pub fn is_quiet(&mut self) -> bool {
        let mut bytes = [0; 4096];
        if let Ok(count) = self.told.read(&mut bytes) {
            self.rest.push_str(std::str::from_utf8(&bytes[..count]).expect("the script writes ASCII"));
        }
        self.rest.is_empty()
    }

    /// Has it print `count` more numbered lines, `line 1` being the first of all, and waits until it has. The number
    /// of the last one.
    pub fn print(&mut self, count: usize) -> usize {
        self.order(&format!("lines {count}"));
        self.expect("printed").parse().expect("the script says a number")
    }

    /// Has it start a child that ignores SIGTERM.
    pub fn bear_child(&mut self) -> Handle {
        self.order("child");
        Handle::on(self.expect("child").parse().expect("the script says its child's number"))
    }

    /// Has it ignore SIGTERM.
    pub fn be_stubborn(&mut self) {
        self.order("stubborn");
        self.expect("stubborn");
    }

    /// Lets it last as long as its caller asked for and end with good metrics.
    pub fn pass(&mut self) {
        self.order("pass");
    }

    /// Lets it end with a wrong result.
    pub fn fail(&mut self) {
        self.order("fail");
    }
}
