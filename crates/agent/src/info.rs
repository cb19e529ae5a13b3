//! `agent-info.json` in the home: what the agent says of itself to whoever can read there.
//!
//! The supervisor says what is true now; a thread of its own writes it, whole and under the file's lock, so that a disk
//! that hangs or somebody who keeps the lock holds up nothing else. Only the latest is written: what was overtaken by
//! then was true for nobody. Fields that others added stay. A file that cannot be read is set aside, and that is said.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_durable::agent_info::{open_own_home, update};
use groundcrew_durable::{Error, Result};
use groundcrew_protocol::agent_info::{AgentInfo, FILE_NAME, InfoActivity, InfoPhase};
use groundcrew_protocol::ids::{Attempt, ClaimNumber, RandomId, RunId};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::LogLevel;
use rustix::time::{ClockId, clock_gettime};

use crate::console::Console;
use crate::errors::chain;
use crate::files::set_aside;
use crate::process::proc_stat;
use crate::stamp::wall;

/// How long a write waits for the lock: whoever else changes the file needs a few milliseconds for it.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long the end of the agent waits for its last word to be written, with time for a lock that is kept.
pub(crate) const LAST_WORD_MAX: Duration = Duration::from_secs(7);

/// Who writes: fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The run that it walks.
    pub run: RunId,
    /// The pod or process that it is.
    pub runtime: Option<AgentRuntime>,
    /// The boot under which it runs.
    pub epoch: String,
    /// Its random id.
    pub session: RandomId,
}

/// What is true of the agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands in its life.
    pub phase: InfoPhase,
    /// What it does.
    pub activity: Option<InfoActivity>,
    /// Why it waits, or why it ended; empty where there is nothing to tell.
    pub reason: String,
    /// The stage in flight, and its attempt.
    pub stage: Option<(Stage, Attempt)>,
    /// Its claim.
    pub claim: Option<ClaimNumber>,
}

impl Standing {
    /// That the agent has ended; `why` is empty for an end in order.
    pub fn ended(phase: InfoPhase, why: String, claim: Option<ClaimNumber>) -> Standing {
        Standing { phase, activity: None, reason: why, stage: None, claim }
    }
}

#[derive(Debug, Default)]
struct Slot {
    next: Option<AgentInfo>,
    is_last: bool,
    is_done: bool,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes, and what all it writes has in common. Clones share the thread.
#[derive(Debug, Clone)]
pub struct InfoFile {
    shared: Arc<Shared>,
    common: AgentInfo,
    said: Option<Standing>,
}

impl InfoFile {
    /// Starts the thread for the file in `home`. What cannot be written is said on the console, once until it can.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(home: &Path, writer: Writer, console: Console) -> std::io::Result<InfoFile> {
        let shared = Arc::<Shared>::default();
        let (of_thread, home) = (shared.clone(), home.to_owned());
        let run = move || run_thread(&of_thread, &home, &console);
        // The depth of the fields that others keep there is what needs the room.
        std::thread::Builder::new().name("info".to_owned()).stack_size(512 * 1024).spawn(run)?;
        let pid = std::process::id();
        let pid_start = i32::try_from(pid).ok().and_then(proc_stat::read).map(|process| process.start);
        let (runtime, runtime_id) = writer.runtime.map(|one| (one.source.into(), one.id)).unzip();
        let common = AgentInfo {
            runtime,
            runtime_id,
            run: Some(writer.run),
            epoch: (!writer.epoch.is_empty()).then_some(writer.epoch),
            session: Some(writer.session),
            pid: Some(pid),
            pid_start,
            started_at: Some(wall()),
            ..AgentInfo::default()
        };
        Ok(InfoFile { shared, common, said: None })
    }

    /// Says what is true now. It is written where that differs from what was said before, and at each beat (`is_beat`),
    /// which shows that the agent lives. `doing` is what the stage in flight is busy with.
    pub fn say(&mut self, standing: Standing, is_beat: bool, doing: impl FnOnce() -> String) {
        if !is_beat && self.said.as_ref() == Some(&standing) {
            return;
        }
        let doing = if standing.stage.is_some() { doing() } else { String::new() };
        let info = self.of(&standing, doing);
        self.said = Some(standing);
        self.shared.lock().next = Some(info);
        self.shared.news.notify_all();
    }

    /// Says the last word and waits until it is written, or for as long as the agent may take for that.
    pub fn end(mut self, standing: Standing) {
        self.shared.lock().is_last = true;
        self.say(standing, true, String::new);
        let until = Instant::now() + LAST_WORD_MAX;
        let mut slot = self.shared.lock();
        while !slot.is_done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            slot = self.shared.news.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn of(&self, standing: &Standing, doing: String) -> AgentInfo {
        let detail = if standing.reason.is_empty() { doing } else { standing.reason.clone() };
        let (stage, attempt) = standing.stage.clone().unzip();
        AgentInfo {
            phase: Some(standing.phase.clone()),
            activity: standing.activity.clone(),
            detail: (!detail.is_empty()).then_some(detail),
            stage,
            attempt,
            claim: standing.claim,
            last_seen: Some(wall()),
            last_seen_up_ms: Some(up_ms()),
            ..self.common.clone()
        }
    }
}

/// Milliseconds since the machine booted.
pub fn up_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ms = i128::from(now.tv_sec) * 1000 + i128::from(now.tv_nsec) / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

fn run_thread(shared: &Shared, home: &Path, console: &Console) {
    let mut said_failure = false;
    loop {
        let mut slot = shared.lock();
        let (info, is_last) = loop {
            match slot.next.take() {
                Some(info) => break (info, slot.is_last),
                None => slot = shared.news.wait(slot).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(slot);
        match write(home, &info) {
            Ok(None) => said_failure = false,
            Ok(Some(aside)) => {
                let text = format!("{FILE_NAME} could not be read; it is now {}", aside.display());
                console.say(LogLevel::Warn, &text);
            }
            Err(error) if !said_failure => {
                said_failure = true;
                console.say(LogLevel::Error, &format!("{FILE_NAME} is not kept: {}", chain(&error)));
            }
            Err(_) => {}
        }
        if is_last {
            shared.lock().is_done = true;
            return shared.news.notify_all();
        }
    }
}

/// Writes the file. What stands in its place and is no such file is set aside first; where, is the answer.
fn write(home: &Path, info: &AgentInfo) -> Result<Option<PathBuf>> {
    let path = home.join(FILE_NAME);
    let put = || {
        update(open_own_home(home)?, &path, LOCK_WAIT, |fields| {
            info.put(fields);
            true
        })
    };
    match put() {
        Ok(_written) => Ok(None),
        Err(Error::Malformed { .. } | Error::NotAFile { .. } | Error::TooLarge { .. }) => {
            let aside = set_aside(&path)?;
            put().map(|_written| Some(aside))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use groundcrew_durable::agent_info::{BYTES_MAX, read};
    use serde_json::{Map, Value, json};

    use super::*;

    fn standing(phase: InfoPhase) -> Standing {
        Standing {
            phase,
            activity: Some(InfoActivity::Executing),
            reason: String::new(),
            stage: Some((Stage::CpuStress, Attempt(2))),
            claim: Some(ClaimNumber(3)),
        }
    }

    fn start(home: &Path) -> InfoFile {
        let writer = Writer {
            run: "r-1".parse().unwrap(),
            runtime: Some(AgentRuntime::pod("u-1")),
            epoch: "boot:1".to_owned(),
            session: RandomId::from_bytes([7; 16]),
        };
        InfoFile::start(home, writer, Console::start().unwrap()).unwrap()
    }

    fn fields(home: &Path) -> Map<String, Value> {
        read(open_own_home(home).unwrap(), &home.join(FILE_NAME)).unwrap().unwrap()
    }

    fn names(home: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_true_is_written_whole_and_what_others_added_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE_NAME);
        fs::write(&path, r#"{"owner":{"team":"lab"},"phase":"stopped","claim":9,"stage":"GPU"}"#).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let mut file = start(home.path());
        file.say(standing(InfoPhase::Running), false, || "50 %".to_owned());
        file.end(Standing::ended(InfoPhase::Stopped, String::new(), Some(ClaimNumber(3))));
        let fields = fields(home.path());
        assert_eq!(fields.keys().take(3).collect::<Vec<_>>(), ["owner", "phase", "claim"]);
        assert_eq!(fields["owner"], json!({"team": "lab"}));
        let info = AgentInfo::of(&fields);
        assert_eq!((info.phase, info.activity, info.stage), (Some(InfoPhase::Stopped), None, None));
        assert_eq!((info.claim, info.runtime_id.as_deref()), (Some(ClaimNumber(3)), Some("u-1")));
        assert_eq!((info.pid, info.run.unwrap().as_str()), (Some(std::process::id()), "r-1"));
        assert!(info.last_seen_up_ms.unwrap() > 0 && info.last_seen >= info.started_at);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o664);
        assert_eq!(names(home.path()), [".agent-info.json.lock", FILE_NAME]);
    }

    #[test]
    fn only_news_and_beats_are_written() {
        let home = tempfile::tempdir().unwrap();
        let mut file = start(home.path());
        file.said = Some(standing(InfoPhase::Running));
        file.say(standing(InfoPhase::Running), false, || unreachable!("nothing is to be said"));
        assert!(file.shared.lock().next.is_none());
        // The thread may have taken it already; it is then in the file once the last word is.
        file.say(Standing { reason: "held".to_owned(), ..standing(InfoPhase::Running) }, false, String::new);
        file.end(standing(InfoPhase::Running));
        assert_eq!(AgentInfo::of(&fields(home.path())).phase, Some(InfoPhase::Running));
        assert_eq!(AgentInfo::of(&fields(home.path())).detail, None);
    }

    #[test]
    fn whatever_stands_in_the_place_of_the_file_is_set_aside_and_kept() {
        let large = " ".repeat(usize::try_from(BYTES_MAX).unwrap() + 1);
        for content in ["", "{\"phase\":", "not JSON", "[]", &large] {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join(FILE_NAME);
            fs::write(&path, content).unwrap();
            start(home.path()).end(standing(InfoPhase::Running));
            assert_eq!(AgentInfo::of(&fields(home.path())).phase, Some(InfoPhase::Running));
            assert_eq!(fs::read_to_string(home.path().join("agent-info.json.broken-1")).unwrap(), content);
        }
        let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, theirs) = (home.path().join(FILE_NAME), outside.path().join("theirs"));
        fs::write(&theirs, "{}").unwrap();
        symlink(&theirs, &path).unwrap();
        start(home.path()).end(standing(InfoPhase::Running));
        assert_eq!((fs::read_to_string(&theirs).unwrap().as_str(), path.is_symlink()), ("{}", false));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        start(home.path()).end(standing(InfoPhase::Running));
        assert!(path.is_file() && home.path().join("agent-info.json.broken-2").is_dir());
    }

    #[test]
    fn a_home_that_is_gone_is_an_error_and_keeps_nobody_from_ending() {
        let home = tempfile::tempdir().unwrap();
        let gone = home.path().join("gone");
        start(&gone).end(standing(InfoPhase::Running));
        assert!(write(&gone, &AgentInfo::default()).is_err() && !gone.exists());
    }
}
