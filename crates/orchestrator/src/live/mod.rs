//! What is known of runs without asking the store: who may speak, when it was last heard, and what it is told.
//!
//! Most heartbeats are answered from here and touch nothing else. The table holds every run that has not ended, and
//! ended ones that somebody asked for; what it says of a run is always what the store said at some version, and a
//! later version replaces an earlier one, never the other way round. Beside that it holds what is true for this
//! moment alone and is never stored: liveness, phase, activity, skew.

pub mod answer;
pub mod bucket;
pub mod clock;
pub mod digest;
pub mod drains;
pub mod feed;
mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bytes::Bytes;
use groundcrew_protocol::agent_info::Ending;
use groundcrew_protocol::ids::{
    ClaimNumber, DirectiveId, DrainId, Generation, NodeName, RandomId, RunId, Sha256Hex,
};
use groundcrew_protocol::limits;
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{DirectiveOutcome, Heartbeat, HomeKind, Phase, StageAttempt};
use http::HeaderValue;

use crate::run::notice::Notice;
use crate::run::state::{DrainTold, Now, Run, WaitFor};
use crate::store::AgentSeen;
use bucket::{Bucket, Rate};
use clock::ListenClock;
use digest::TokenDigest;
use feed::Feed;

/// Longest text of activity and drain that is kept, in bytes.
const SAID_BYTES_MAX: usize = 256;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// All runs that are known of.
#[derive(Debug)]
pub struct Live {
    runs: RwLock<HashMap<RunId, Arc<LiveRun>>>,
    /// The clock of listening.
    pub clock: ListenClock,
    started: Instant,
    rate: Rate,
    announced: RwLock<Announced>,
    /// Which nodes operators want to be drained.
    pub drains: drains::Wanted,
}

/// What every answer carries.
#[derive(Debug, Clone)]
struct Announced {
    generation: Generation,
    /// What is served, and what will be.
    pins: Vec<Sha256Hex>,
    /// The same as a header, while they are more than what is served.
    header: Option<HeaderValue>,
    /// Raised with each change, so that a prepared answer knows that it is old.
    edition: u64,
    /// When that was, on the clock of listening.
    since_ms: u64,
}

impl Announced {
    fn new(generation: Generation, pins: Vec<Sha256Hex>, edition: u64, since_ms: u64) -> Announced {
        let text = pins.iter().map(Sha256Hex::as_str).collect::<Vec<_>>().join(",");
        let header = (pins.len() > 1)
            .then(|| HeaderValue::from_str(&text).expect("hexadecimal digits and commas fit a header"));
        Announced { generation, pins, header, edition, since_ms }
    }
}

/// A run that is known of.
#[derive(Debug)]
pub struct LiveRun {
    /// Its id.
    pub id: RunId,
    /// Its node.
    pub node: NodeName,
    /// Those who watch it.
    pub feed: Feed,
    bucket: Bucket,
    /// When the current claim was last heard, on the clock of listening; where it was not, when the run became known.
    heard_ms: AtomicU64,
    /// The claim has spoken since the run became known to this start.
    was_heard: AtomicBool,
    state: Mutex<LiveState>,
}

/// What is known of a run.
#[derive(Debug)]
pub struct LiveState {
    /// Version in the store that this is of.
    pub version: u64,
    /// Where it stands.
    pub standing: State,
    /// When it ended.
    pub ended: Option<WallMs>,
    /// The current claim.
    pub claim: Option<LiveClaim>,
    /// What its agent last said of itself; absent before it spoke since this start.
    pub said: Option<Said>,
    /// The protocol that a hello agreed upon, for the claim that follows it.
    pub hello: Option<u32>,
    /// The latest refusal of a claim from another machine than the node, with when it was.
    pub wrong_machine: Option<String>,
    /// Watchers were told that the agent is offline.
    offline_told: bool,
    /// Day and pins that are stored of the agent.
    noted: Option<(i64, Vec<Sha256Hex>)>,
    /// What it waits for, and until when on the clock of listening.
    pub wait: Option<(WaitFor, u64)>,
    boot_token: TokenDigest,
    /// Silence after which it is held, where silence counts.
    silence_ms: Option<u64>,
    held_for_silence: bool,
    /// Its pod or process was seen to have ended: a word of its is news, and it shows as ended until then.
    end: Option<Ending>,
    pending: Vec<(DirectiveId, Option<DirectiveOutcome>)>,
    /// The node's drains that its agent was told of.
    pub drains: Vec<DrainTold>,
    /// The comparison of the node's drains that was last decided on, and when, on the clock of listening.
    drains_compared: Option<(drains::Compared, u64)>,
    /// Notices that are to be sent.
    pub notices: Vec<Notice>,
    answer: Bytes,
    answer_edition: u64,
}

/// The current claim of a run.
#[derive(Debug, Clone)]
pub struct LiveClaim {
    /// Its number.
    pub number: ClaimNumber,
    /// The protocol that its agent speaks.
    pub protocol: u32,
    /// The home's random id.
    pub instance: Option<RandomId>,
    /// What kind of home that is.
    pub home: HomeKind,
    /// The pod or process that its agent is.
    pub runtime: Option<AgentRuntime>,
    spoke: bool,
    shuts_down: bool,
    token: TokenDigest,
}

/// What an agent said of itself in its last heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// When it was heard, by the orchestrator's wall clock.
    pub heard: WallMs,
    /// What it does as a whole.
    pub phase: Phase,
    /// What it is busy with.
    pub activity: String,
    /// Why it is drained; empty where it is not.
    pub drain: String,
    /// The orchestrator's drains that hold it.
    pub drains: Vec<DrainId>,
    /// The greatest age of a drain marker there.
    pub drain_max_age_ms: Option<u64>,
    /// The attempt that it has in flight.
    pub active: Option<StageAttempt>,
    /// How far its clock is ahead of ours, in milliseconds; absent where it sent none.
    pub skew_ms: Option<i64>,
    /// Its durable home has failed.
    pub home_failed: bool,
    /// Certificates that it accepts.
    pub pins: Vec<Sha256Hex>,
}

/// What is to be done with a heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub enum Beat {
    /// Answer with this.
    Answer(Bytes),
    /// Nothing changed but what every answer carries: prepare the answer with [`Live::answer`].
    Prepare,
    /// Something must be decided first.
    Decide,
}

/// As whom a token lets its bearer speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// The holder of the run token.
    Agent,
    /// The holder of the boot token.
    Boot,
    /// Nobody of this run.
    Stranger,
}

impl Live {
    /// An empty table.
    pub fn new(
        clock: ListenClock,
        generation: Generation,
        pins: Vec<Sha256Hex>,
        requests_per_second: u32,
    ) -> Live {
        let since_ms = clock.read_ms(Instant::now());
        Live {
            runs: RwLock::default(),
            clock,
            started: Instant::now(),
            rate: Rate::per_second(requests_per_second),
            announced: RwLock::new(Announced::new(generation, pins, 1, since_ms)),
            drains: drains::Wanted::default(),
        }
    }

    /// A run, where it is known of.
    pub fn get(&self, run: &RunId) -> Option<Arc<LiveRun>> {
        self.runs.read().expect("no holder of this lock panics").get(run).cloned()
    }

    /// All runs.
    pub fn all(&self) -> Vec<Arc<LiveRun>> {
        self.runs.read().expect("no holder of this lock panics").values().cloned().collect()
    }

    /// How many runs are known of.
    pub fn count(&self) -> usize {
        self.runs.read().expect("no holder of this lock panics").len()
    }

    /// Takes what the store says of a run. An earlier version than what is known changes nothing.
    pub fn update(&self, run: &Run, version: u64) -> Arc<LiveRun> {
        let announced = self.announced();
        if let Some(known) = self.get(&run.id) {
            let mut state = known.state();
            if version > state.version {
                let claim_before = state.claim.as_ref().map(|claim| claim.number);
                state.take(run, version, &announced);
                // A claim is a word of its agent's.
                if claim_before != state.claim.as_ref().map(|claim| claim.number) {
                    known.heard_ms.store(self.clock.read_ms(Instant::now()), Ordering::Relaxed);
                    known.was_heard.store(true, Ordering::Relaxed);
                    state.said = None;
                }
            }
            drop(state);
            return known;
        }
        // Allowances of silence begin with this start: what was heard before is not known.
        let live = self.glimpse(run, version);
        let mut runs = self.runs.write().expect("no holder of this lock panics");
        let entry = runs.entry(run.id.clone()).or_insert_with(|| live.clone()).clone();
        drop(runs);
        if !Arc::ptr_eq(&entry, &live) {
            // Somebody else was quicker; the later version stands.
            return self.update(run, version);
        }
        entry
    }

    /// What is known of a run that is not in the table, without putting it there: for lists of ended runs.
    pub fn glimpse(&self, run: &Run, version: u64) -> Arc<LiveRun> {
        let heard_ms = AtomicU64::new(self.clock.read_ms(Instant::now()));
        let state = Mutex::new(LiveState::of(run, version, &self.announced()));
        let (feed, bucket, was_heard) = (Feed::default(), Bucket::default(), AtomicBool::new(false));
        Arc::new(LiveRun {
            id: run.id.clone(),
            node: run.node.clone(),
            feed,
            bucket,
            heard_ms,
            was_heard,
            state,
        })
    }

    /// Forgets a run that was deleted, or that nobody asks for any more.
    pub fn forget(&self, run: &RunId) {
        self.runs.write().expect("no holder of this lock panics").remove(run);
    }

    /// The moment for a decision about a run.
    pub fn now(&self, run: &RunId) -> Now {
        let (listened_ms, anew_ms) = self.clock.read_both_ms(Instant::now());
        let heard_ms = self.get(run).map_or(anew_ms, |live| live.heard_ms.load(Ordering::Relaxed));
        Now { wall: clock::wall_now(), listened_ms, heard_ms: heard_ms.max(anew_ms) }
    }

    /// The generation, and the pins that are or will be served.
    pub fn announced(&self) -> (Generation, Vec<Sha256Hex>, u64) {
        let announced = self.announced.read().expect("no holder of this lock panics");
        (announced.generation, announced.pins.clone(), announced.edition)
    }

    /// Announces other pins, or another generation, from now on.
    pub fn announce(&self, generation: Generation, pins: Vec<Sha256Hex>) {
        let mut announced = self.announced.write().expect("no holder of this lock panics");
        if announced.generation != generation || announced.pins != pins {
            let since_ms = self.clock.read_ms(Instant::now());
            *announced = Announced::new(generation, pins, announced.edition + 1, since_ms);
        }
    }

    /// For how long this certificate was announced to whoever asked, in milliseconds of listening. A start begins anew.
    pub fn announced_for_ms(&self, pin: &Sha256Hex) -> u64 {
        let announced = self.announced.read().expect("no holder of this lock panics");
        let listened_ms = self.clock.read_ms(Instant::now());
        if announced.pins.contains(pin) { listened_ms.saturating_sub(announced.since_ms) } else { 0 }
    }

    /// What every answer has in its head while a rotation of the certificate is announced ([`PINS_HEADER`]).
    ///
    /// [`PINS_HEADER`]: groundcrew_protocol::wire::PINS_HEADER
    pub fn pins_header(&self) -> Option<HeaderValue> {
        self.announced.read().expect("no holder of this lock panics").header.clone()
    }

    fn edition(&self) -> u64 {
        self.announced.read().expect("no holder of this lock panics").edition
    }

    /// Counts a request of a run's token.
    ///
    /// # Errors
    /// Where there were too many: the seconds to wait.
    pub fn admit(&self, live: &LiveRun) -> Result<(), u64> {
        self.admit_by(&live.bucket)
    }

    /// Counts a request against any bucket.
    ///
    /// # Errors
    /// Where there were too many: the seconds to wait.
    pub fn admit_by(&self, bucket: &Bucket) -> Result<(), u64> {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        bucket.take(self.rate, now_us)
    }

    /// Notes that the current claim of a run was heard.
    pub fn hear(&self, live: &LiveRun) {
        live.heard_ms.fetch_max(self.clock.read_ms(Instant::now()), Ordering::Relaxed);
        live.was_heard.store(true, Ordering::Relaxed);
    }

    /// Milliseconds since the current claim of a run was heard, as far as somebody listened.
    pub fn quiet_ms(&self, live: &LiveRun) -> u64 {
        let (listened_ms, anew_ms) = self.clock.read_both_ms(Instant::now());
        listened_ms.saturating_sub(live.heard_ms.load(Ordering::Relaxed).max(anew_ms))
    }

    /// True where an agent has the run and was heard lately.
    pub fn speaks(&self, live: &LiveRun) -> bool {
        live.state().claim.is_some() && self.quiet_ms(live) < offline_after_ms()
    }

    /// When the current claim was last heard, by the wall clock; `None` where it was not since this start, or since
    /// listening last began anew.
    pub fn last_heard(&self, live: &LiveRun) -> Option<WallMs> {
        let (listened_ms, anew_ms) = self.clock.read_both_ms(Instant::now());
        let heard_ms = live.heard_ms.load(Ordering::Relaxed);
        let was_heard =
            live.was_heard.load(Ordering::Relaxed) && live.state().claim.is_some() && heard_ms >= anew_ms;
        let quiet_ms = i64::try_from(listened_ms.saturating_sub(heard_ms)).unwrap_or(i64::MAX);
        was_heard.then(|| WallMs(clock::wall_now().0.saturating_sub(quiet_ms)))
    }

    /// Takes a heartbeat, and says whether the answer is known or must be decided.
    pub fn beat(&self, live: &LiveRun, heartbeat: &Heartbeat) -> Beat {
        let edition = self.edition();
        let mut state = live.state();
        if !state.is_of_current_claim(heartbeat.claim) {
            return Beat::Decide;
        }
        self.hear(live);
        let came_back = std::mem::take(&mut state.offline_told);
        if state.say(heartbeat, clock::wall_now()) || came_back {
            live.feed.tell(feed::Telling::Agent);
        }
        if state.must_decide(heartbeat) {
            return Beat::Decide;
        }
        if state.answer_edition != edition {
            return Beat::Prepare;
        }
        Beat::Answer(state.answer.clone())
    }

    /// What is to be stored of an agent that was just heard, where that is another than what is stored.
    pub fn to_note(&self, live: &LiveRun) -> Option<AgentSeen> {
        let state = live.state();
        let (heard, pins) = match &state.said {
            Some(said) => (said.heard, said.pins.clone()),
            // It has claimed and not spoken yet: it is there, and may know nothing.
            None => (clock::wall_now(), Vec::new()),
        };
        let seen_day = heard.0.div_euclid(DAY_MS);
        if state.noted.as_ref().is_some_and(|(day, noted)| *day == seen_day && *noted == pins) {
            return None;
        }
        let instance = state.claim.as_ref()?.lasting_name(live);
        Some(AgentSeen { instance, run: live.id.clone(), seen_day, pins })
    }

    /// Notes agents that have become silent, and tells those who watch them.
    pub fn tell_offline(&self) {
        for live in self.all() {
            let is_offline = self.quiet_ms(&live) >= offline_after_ms();
            let mut state = live.state();
            if is_offline && state.claim.is_some() && state.ended.is_none() && !state.offline_told {
                state.offline_told = true;
                live.feed.tell(feed::Telling::Agent);
            }
        }
    }

    /// What a heartbeat of this run is answered now. `run` prepares it anew where something else is announced since.
    pub fn answer(&self, live: &LiveRun, run: &Run) -> Bytes {
        let announced = self.announced();
        let mut state = live.state();
        if state.answer_edition != announced.2 {
            state.prepare(run, &announced);
        }
        state.answer.clone()
    }

    /// Runs for which time may have decided something: their wait is over, or their agent is silent for too long.
    pub fn due(&self) -> Vec<RunId> {
        let (listened_ms, anew_ms) = self.clock.read_both_ms(Instant::now());
        let due = |live: &Arc<LiveRun>| {
            let quiet_ms = listened_ms.saturating_sub(live.heard_ms.load(Ordering::Relaxed).max(anew_ms));
            let state = live.state();
            let is_over = state.wait.is_some_and(|(_, until_ms)| listened_ms >= until_ms);
            is_over || state.silence_ms.is_some_and(|limit_ms| quiet_ms >= limit_ms)
        };
        self.all().iter().filter(|live| due(live)).map(|live| live.id.clone()).collect()
    }

    /// How an agent shows: `stopped` or `error` where its pod or process was seen to end, `offline`, or its phase; absent before the first claim.
    pub fn agent_word(&self, live: &LiveRun) -> Option<String> {
        let quiet_ms = self.quiet_ms(live);
        let state = live.state();
        state.claim.as_ref()?;
        if let Some(end) = state.end {
            return Some(end.phase().to_string());
        }
        if quiet_ms >= offline_after_ms() {
            return Some("offline".to_owned());
        }
        Some(state.said.as_ref().map_or_else(|| "claimed".to_owned(), |said| said.phase.to_string()))
    }
}

/// Silence after which an agent shows as offline.
pub fn offline_after_ms() -> u64 {
    limits::HEARTBEAT_INTERVAL_MS * limits::HEARTBEATS_MISSED_MAX
}

impl LiveClaim {
    /// What an agent is counted by from day to day: its home, where that lasts. One in memory is gone with the power, and
    /// the next boot makes another, which takes its place: its node stays. An agent of protocol 1 has no home that names
    /// itself; its run stands for it.
    fn lasting_name(&self, live: &LiveRun) -> RandomId {
        match (&self.home, &self.instance) {
            (HomeKind::Volatile, Some(_)) => name_of("node", live.node.as_str()),
            (HomeKind::Durable | HomeKind::Unknown(_), Some(instance)) => instance.clone(),
            (HomeKind::Durable | HomeKind::Volatile | HomeKind::Unknown(_), None) => {
                name_of("run", live.id.as_str())
            }
        }
    }
}

/// An id that stands for something with a name.
fn name_of(kind: &str, name: &str) -> RandomId {
    let digest = TokenDigest::of(&format!("{kind}:{name}")).hex();
    digest.as_str()[..32].parse().expect("32 of 64 hexadecimal digits are an id")
}

#[cfg(test)]
mod tests;
