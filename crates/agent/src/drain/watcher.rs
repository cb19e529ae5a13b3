//! Looks at the marker each second, at once when asked, and changes it as the orchestrator orders. A plain thread does
//! both, so that it is the only one that a stalled disk holds up.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use groundcrew_durable::drain_marker::read::{Absence, Drain};
use groundcrew_durable::drain_marker::sighting::{Now, Reader};
use groundcrew_durable::drain_marker::write::{self, When, Whom};
use groundcrew_durable::drain_marker::{self as drain_marker, Principal};
use groundcrew_protocol::wire::LogLevel;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::control::sight::{Sight, is_same, why_absent};
use crate::errors;
use crate::io_thread::STALL_MS;

/// Time between two looks that nobody asked for. The marker is one small file in the page cache.
const LOOK: Duration = Duration::from_secs(1);
/// Requests that wait: those of the control loop, and of a few who ask for the agent's status.
const REQUESTS_MAX: usize = 32;
/// A disk that has not answered for so long is stalled; whoever asked goes on without.
const ANSWER: Duration = Duration::from_millis(STALL_MS);

/// Which marker, and by which rules it is read.
#[derive(Debug, Clone)]
pub struct Marker {
    /// The agent's home.
    pub home: PathBuf,
    /// This boot's id; empty where it cannot be read.
    pub boot_id: String,
    /// The agent's epoch; empty where it cannot be read.
    pub epoch: String,
    /// The greatest age of a marker.
    pub max_age: Duration,
}

/// Tells something: at which level, and what.
pub type Say = Box<dyn Fn(LogLevel, String) + Send>;

/// A handle on the thread; clones share it, and it ends with the last one.
#[derive(Debug, Clone)]
pub struct Watcher {
    requests: SyncSender<Request>,
    latest: watch::Receiver<Sight>,
    patience: Duration,
}

#[derive(Debug)]
enum Request {
    Look(oneshot::Sender<Sight>),
    Change(Change, oneshot::Sender<Result<(), String>>),
}

/// What is to be done to the marker.
#[derive(Debug)]
pub enum Change {
    /// Have it hold a drain.
    Begin {
        /// Who asks.
        principal: String,
        /// Whether for a quiet shutdown.
        quiet: bool,
    },
    /// Take a drain off.
    Cancel {
        /// Whose; everybody's where it names nobody.
        principal: Option<String>,
    },
}

impl Watcher {
    /// Starts the thread; the first look is made when this returns, unless the disk takes longer than a stalled one may.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub async fn start(marker: Marker, say: Say) -> std::io::Result<Watcher> {
        let (requests, waiting) = sync_channel(REQUESTS_MAX);
        let (tell, latest) = watch::channel(Sight { number: 0, drain: Drain::Absent(Absence::NoMarker) });
        let mut looker = Looker::new(marker, tell, say);
        // The frames are shallow, as those of the I/O thread.
        std::thread::Builder::new()
            .name("drain".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || looker.run(&waiting))?;
        let watcher = Watcher { requests, latest, patience: ANSWER };
        // Without an answer the disk hangs: the next look that is made is told.
        let _stalled = watcher.look().await;
        Ok(watcher)
    }

    /// What was last seen, and when that changes.
    pub fn latest(&self) -> watch::Receiver<Sight> {
        self.latest.clone()
    }

    /// Has the thread look, after what it was asked before. `None` where the disk does not answer in time.
    pub fn look(&self) -> impl Future<Output = Option<Sight>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let taken = self.requests.try_send(Request::Look(answer)).is_ok();
        let patience = self.patience;
        async move { if taken { timeout(patience, answered).await.ok()?.ok() } else { None } }
    }

    /// Has the thread change the marker, after what it was asked before. The error says why it did not, for people.
    pub fn change(&self, change: Change) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let taken = self.requests.try_send(Request::Change(change, answer)).is_ok();
        let patience = self.patience;
        async move {
            if !taken {
                return Err(format!(
                    "{REQUESTS_MAX} requests about the drain marker wait for the disk already"
                ));
            }
            match timeout(patience, answered).await {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err("the thread that writes the drain marker has ended".to_owned()),
                Err(_) => {
                    let after_ms = patience.as_millis();
                    Err(format!("writing the drain marker: the disk has not answered for {after_ms} ms"))
                }
            }
        }
    }
}

/// The thread's own.
struct Looker {
    marker: Marker,
    reader: Reader,
    number: u64,
    tell: watch::Sender<Sight>,
    say: Say,
    /// What was last said of it, so that it is said once.
    said: String,
    unkept_said: bool,
}

impl Looker {
    fn new(marker: Marker, tell: watch::Sender<Sight>, say: Say) -> Looker {
        let reader = Reader::new(&marker.home, &marker.boot_id, marker.max_age);
        Looker { marker, reader, number: 0, tell, say, said: String::new(), unkept_said: false }
    }

    fn run(&mut self, waiting: &Receiver<Request>) {
        let mut next = Instant::now();
        loop {
            match waiting.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Request::Look(answer)) => {
                    let sight = self.look(Now::read(), true);
                    // Whoever asked may have lost patience.
                    let _given_up = answer.send(sight);
                }
                Ok(Request::Change(change, answer)) => {
                    let done = self.change(&change);
                    let _given_up = answer.send(done);
                    self.look(Now::read(), true);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.look(Now::read(), false);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            next = Instant::now() + LOOK;
        }
    }

    /// Looks, and tells the control loop where that is news or was asked for.
    fn look(&mut self, now: Now, asked: bool) -> Sight {
        let looked = self.reader.look(&self.marker.epoch, now);
        self.number += 1;
        let sight = Sight { number: self.number, drain: looked.drain };
        if let (Some(error), false) = (&looked.unkept, self.unkept_said) {
            self.unkept_said = true;
            let why = errors::chain(error);
            (self.say)(LogLevel::Warn, format!("what is known of the drain marker cannot be kept: {why}"));
        }
        self.say_of(&sight.drain, looked.lapses_now);
        self.tell.send_if_modified(|told| {
            let is_news = asked || !is_same(&told.drain, &sight.drain);
            if is_news {
                told.clone_from(&sight);
            }
            is_news
        });
        sight
    }

    /// Says once of each marker what is odd about it: that it is malformed, lapsed, or of another boot. Which one lapses now the
    /// reader knows, also of a marker that an earlier agent has seen.
    fn say_of(&mut self, drain: &Drain, lapses_now: bool) {
        let (level, text) = match drain {
            Drain::Active(active) => match &active.defect {
                Some(defect) => {
                    (LogLevel::Warn, format!("a malformed drain marker drains all the same: {defect}"))
                }
                None => return self.said.clear(),
            },
            Drain::Absent(Absence::NoMarker) => return self.said.clear(),
            Drain::Absent(absence @ Absence::Lapsed { .. }) => {
                if lapses_now {
                    (self.say)(LogLevel::Warn, format!("drain marker: {}", why_absent(absence)));
                }
                return self.said.clear();
            }
            Drain::Absent(absence @ Absence::OtherEpoch { .. }) => {
                (LogLevel::Warn, format!("drain marker: {}", why_absent(absence)))
            }
            Drain::Absent(absence @ Absence::Unseen { .. }) => (LogLevel::Error, why_absent(absence)),
        };
        if self.said != text {
            (self.say)(level, text.clone());
            self.said = text;
        }
    }

    fn change(&self, change: &Change) -> Result<(), String> {
        let Marker { home, boot_id, epoch, max_age } = &self.marker;
        let when = When { epoch, boot_id, now: Now::read(), max_age: *max_age };
        let parse = |text: &str| text.parse::<Principal>().map_err(|error| format!("principal: {error}"));
        let place = |home: &Path| drain_marker::path_in(home).display().to_string();
        let failed = |error: &groundcrew_durable::Error| {
            format!("changing the drain marker {}: {}", place(home), errors::chain(error))
        };
        match change {
            Change::Begin { principal, quiet } => write::begin(home, &parse(principal)?, *quiet, &when)
                .map(drop)
                .map_err(|error| failed(&error)),
            Change::Cancel { principal: None } => {
                write::cancel(home, Whom::All, &when).map(drop).map_err(|error| failed(&error))
            }
            Change::Cancel { principal: Some(principal) } => {
                let principal = parse(principal)?;
                write::cancel(home, Whom::One(&principal), &when).map(drop).map_err(|error| failed(&error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const EPOCH: &str = "boot:1";

    fn marker(home: &Path) -> Marker {
        let max_age = Duration::from_secs(3600);
        Marker { home: home.to_owned(), boot_id: "boot".to_owned(), epoch: EPOCH.to_owned(), max_age }
    }

    /// A looker without a thread, what it tells the loop, and what it says.
    fn looker(home: &Path) -> (Looker, watch::Receiver<Sight>, Arc<Mutex<Vec<String>>>) {
        let (tell, told) = watch::channel(Sight { number: 0, drain: Drain::Absent(Absence::NoMarker) });
        let said = Arc::new(Mutex::new(Vec::new()));
        let says = said.clone();
        let say: Say = Box::new(move |_, text| says.lock().unwrap().push(text));
        (Looker::new(marker(home), tell, say), told, said)
    }

    fn now(seconds: u64) -> Now {
        Now { wall_ms: 1_790_000_000_000 + seconds as i64 * 1000, boot_ms: seconds * 1000 }
    }

    #[test]
    fn the_loop_is_told_what_changed_and_what_was_asked_for_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = drain_marker::path_in(home.path());
        let (mut looker, mut told, _) = looker(home.path());
        looker.look(now(0), false);
        assert!(!told.has_changed().unwrap());
        std::fs::write(&path, "{}").unwrap();
        looker.look(now(1), false);
        assert!(told.borrow_and_update().active().is_some());
        looker.look(now(2), false);
        assert!(!told.has_changed().unwrap(), "the same marker is no news");
        let asked = looker.look(now(3), true);
        assert_eq!(told.borrow_and_update().number, asked.number);
        std::fs::remove_file(&path).unwrap();
        looker.look(now(4), false);
        assert!(told.borrow_and_update().active().is_none());
    }

    #[test]
    fn what_is_odd_about_a_marker_is_said_once() {
        let home = tempfile::tempdir().unwrap();
        let path = drain_marker::path_in(home.path());
        let (mut looker, _told, said) = looker(home.path());
        let mut last = 0;
        let mut newly = |count: usize, part: &str| {
            let said = said.lock().unwrap();
            assert_eq!(said.len() - last, count, "{said:?}");
            assert!(count == 0 || said[last].contains(part), "{said:?}");
            last = said.len();
        };
        std::fs::write(&path, "no JSON").unwrap();
        looker.look(now(0), false);
        newly(1, "malformed");
        looker.look(now(1), false);
        newly(0, "");
        looker.look(now(3602), false);
        newly(1, "lapsed");
        looker.look(now(3603), false);
        newly(0, "");
        std::fs::write(&path, r#"{"epoch": "boot:2"}"#).unwrap();
        looker.look(now(3604), false);
        newly(1, "another boot (boot:2)");
        looker.look(now(3605), false);
        newly(0, "");
    }

    #[test]
    fn each_marker_that_lapsed_is_said_once_whoever_wrote_it_and_whichever_agent_looks() {
        let home = tempfile::tempdir().unwrap();
        let path = drain_marker::path_in(home.path());
        let lapsed = r#"{"principal": "ann", "requested_at": "2026-07-01T12:00:00Z"}"#;
        let (mut looker, _told, said) = looker(home.path());
        let count = |said: &Arc<Mutex<Vec<String>>>| said.lock().unwrap().len();
        std::fs::write(&path, lapsed).unwrap();
        for seconds in 0..2 {
            looker.look(now(seconds), false);
            assert_eq!(count(&said), 1);
        }
        // The next one, of the same age and by the same hand.
        std::fs::write(&path, format!("{lapsed} ")).unwrap();
        for seconds in 2..4 {
            looker.look(now(2), false);
            assert_eq!(count(&said), 2, "{seconds}");
        }
        // The agent is started again.
        let (mut next, _told, said) = self::looker(home.path());
        next.look(now(4), false);
        assert_eq!(count(&said), 0, "{said:?}");
    }

    fn begin(principal: &str) -> Change {
        Change::Begin { principal: principal.to_owned(), quiet: false }
    }

    fn cancel(principal: &str) -> Change {
        Change::Cancel { principal: Some(principal.to_owned()) }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_waited_for_by_nobody_for_long() {
        // A thread that never answers stands for it.
        let (requests, _waiting) = sync_channel(1);
        let (_tell, latest) = watch::channel(Sight { number: 0, drain: Drain::Absent(Absence::NoMarker) });
        let watcher = Watcher { requests, latest, patience: Duration::from_millis(10) };
        assert_eq!(watcher.look().await, None);
        let why = watcher.change(begin("a")).await.unwrap_err();
        assert!(why.contains("wait for the disk"), "{why}");
    }

    #[tokio::test]
    async fn a_change_is_seen_by_the_next_look() {
        let home = tempfile::tempdir().unwrap();
        let watcher = Watcher::start(marker(home.path()), Box::new(|_, _| {})).await.unwrap();
        watcher.change(begin("orchestrator:d-1")).await.unwrap();
        let sight = watcher.look().await.unwrap();
        assert_eq!(sight.active().unwrap().principal.as_str(), "orchestrator:d-1");
        watcher.change(cancel("somebody")).await.unwrap();
        assert!(watcher.look().await.unwrap().active().is_some());
        watcher.change(cancel("orchestrator:d-1")).await.unwrap();
        assert!(watcher.look().await.unwrap().active().is_none());
        let why = watcher.change(begin("a\nb")).await.unwrap_err();
        assert!(why.starts_with("principal: found"), "{why}");
    }
}
