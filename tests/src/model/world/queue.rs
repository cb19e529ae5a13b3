//! What is to happen, in the order of the world's time.

use groundcrew_agent::control::sight::Sight;
use groundcrew_protocol::ids::BootId;
use groundcrew_protocol::wire::StageAttempt;

use super::super::server::{Request, Response};
use super::drains::Disk;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    ToServer { from: usize, life: u64, call: u64, request: Request, tag: u64 },
    ToAgent { to: usize, life: u64, call: u64, response: Response },
    CallTimeout { agent: usize, life: u64, call: u64 },
    Beat { agent: usize, life: u64 },
    Wake { agent: usize, life: u64 },
    StageEnd { agent: usize, life: u64, which: StageAttempt },
    StartAgent { agent: usize },
    Forward { agent: usize, life: u64 },
    LogTimeout { agent: usize, life: u64, call: u64 },
    Sync { agent: usize, life: u64 },
    Flush { agent: usize, life: u64 },
    Reboot { agent: usize, life: u64, which: StageAttempt },
    GoDown { agent: usize, boot: BootId },
    Disk { agent: usize, life: u64, what: Disk },
    Sighted { agent: usize, life: u64, what: Disk, sight: Sight },
    Drainer,
    HookEnd { agent: usize, life: u64, number: u64, done: Result<(), String> },
    ServerTick,
    ServerStart,
    Trouble,
    Operator,
}

/// When, in which order among those of one moment, and what.
pub(super) struct Entry(pub u64, pub u64, pub Happening);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}
