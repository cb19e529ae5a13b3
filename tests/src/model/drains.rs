//! The marker of a machine in the model: the real reader and writer, over a folder in memory and the world's clock.

use std::path::Path;

use groundcrew_agent::control::sight::Sight;
use groundcrew_durable::drain_marker::read::Drain;
use groundcrew_durable::drain_marker::sighting::{Now, Reader};
use groundcrew_durable::drain_marker::write::{When, Whom, begin, cancel};
use groundcrew_durable::drain_marker::{MAX_AGE_DEFAULT, Principal};
use groundcrew_protocol::ids::BootId;

/// The world's first moment, in Unix milliseconds: 2026-07-01T12:00:00Z. A time that is not trusted would age otherwise.
const BEGAN_MS: i64 = 1_782_907_200_000;

/// Its greatest age there.
pub const MAX_AGE_MS: u64 = MAX_AGE_DEFAULT.as_secs() * 1_000;

/// What the agent of a machine makes of its marker.
#[derive(Debug, Default)]
pub struct Drains {
    /// The agent's own reader, while it runs.
    reader: Option<Reader>,
    /// The number of its last look.
    looks: u64,
    /// Until when the thread that reads and writes has something to do: it does one thing after the other.
    pub busy_until_ms: u64,
    /// The last look for something that was about to start has found a drain.
    pub last_look_drains: bool,
    /// Somebody was told under this marker that nothing is active.
    pub told_idle: bool,
}

/// An epoch: here each boot has one process 1.
pub fn epoch(boot: &BootId) -> String {
    format!("{boot}:1")
}

fn now(now_ms: u64) -> Now {
    Now { wall_ms: BEGAN_MS + i64::try_from(now_ms).expect("days fit"), boot_ms: now_ms }
}

impl Drains {
    /// The agent starts.
    pub(super) fn begin(&mut self, home: &Path, boot: &BootId) {
        self.reader = Some(Reader::new(home, &boot.to_string(), MAX_AGE_DEFAULT));
        (self.looks, self.busy_until_ms, self.last_look_drains) = (0, 0, false);
    }

    /// The agent's process ends. Its marker stands.
    pub(super) fn end(&mut self) {
        self.reader = None;
    }

    /// The agent looks.
    pub fn look(&mut self, boot: &BootId, now_ms: u64) -> Sight {
        let reader = self.reader.as_mut().expect("an agent that looks runs");
        let looked = reader.look(&epoch(boot), now(now_ms));
        self.looks += 1;
        Sight { number: self.looks, drain: looked.drain }
    }
}

/// Who holds the marker of a home, whoever looks.
pub fn holders(home: &Path, boot: &BootId, now_ms: u64) -> Vec<String> {
    let mut reader = Reader::new(home, &boot.to_string(), MAX_AGE_DEFAULT);
    match reader.peek(&epoch(boot), now(now_ms)) {
        Drain::Active(active) => active.holders.iter().map(|holder| holder.principal.to_string()).collect(),
        Drain::Absent(_) => Vec::new(),
    }
}

/// What somebody does to the marker of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Asks for a drain, or renews it.
    Begin(String),
    /// Asks no more.
    Cancel(String),
    /// Takes everybody's off.
    CancelAll,
    /// Removes the file.
    ByHand,
}

/// Does it.
pub fn change(home: &Path, boot: &BootId, now_ms: u64, change: &Change) {
    let epoch = epoch(boot);
    let boot_id = boot.to_string();
    let when = When { epoch: &epoch, boot_id: &boot_id, now: now(now_ms), max_age: MAX_AGE_DEFAULT };
    let who = |name: &String| name.parse::<Principal>().expect("a name");
    match change {
        Change::Begin(name) => drop(begin(home, &who(name), false, &when).expect("the folder is ours")),
        Change::Cancel(name) => {
            drop(cancel(home, Whom::One(&who(name)), &when).expect("the folder is ours"));
        }
        Change::CancelAll => drop(cancel(home, Whom::All, &when).expect("the folder is ours")),
        Change::ByHand => match std::fs::remove_file(groundcrew_durable::drain_marker::path_in(home)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("the folder is ours: {error}")
            }
            Ok(()) | Err(_) => {}
        },
    }
}
