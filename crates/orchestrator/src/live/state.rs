//! What is known of one run: taken from the store's word, and from its agent's.

use std::sync::MutexGuard;

use bytes::Bytes;
use groundcrew_protocol::agent_info::Ending;
use groundcrew_protocol::ids::{ClaimNumber, DrainId, Generation, Sha256Hex};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{DirectiveReport, Heartbeat, StageAttempt};

use super::answer::heartbeat_answer;
use super::digest::TokenDigest;
use super::drains::DRAINS_SAID_MAX;
use super::{Bearer, LiveClaim, LiveRun, LiveState, SAID_BYTES_MAX, Said};
use crate::run::state::{HeldFor, Run, Standing, WaitFor};
use crate::store::AgentSeen;

impl LiveRun {
    /// What is known of it. Held for no longer than it takes to read a few fields.
    pub fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// As whom a token lets its bearer speak. In protocol 1 the boot token is the claim's own.
    pub fn bearer(&self, token: &TokenDigest) -> Bearer {
        let state = self.state();
        if state.claim.as_ref().is_some_and(|claim| claim.token.is(token)) {
            Bearer::Agent
        } else if state.boot_token.is(token) {
            Bearer::Boot
        } else {
            Bearer::Stranger
        }
    }
}

impl LiveState {
    pub(super) fn of(run: &Run, version: u64, announced: &(Generation, Vec<Sha256Hex>, u64)) -> LiveState {
        let mut state = LiveState {
            version,
            standing: run.state(),
            ended: None,
            claim: None,
            said: None,
            hello: None,
            wrong_machine: None,
            offline_told: false,
            noted: None,
            wait: None,
            boot_token: TokenDigest::from(&run.boot_token),
            silence_ms: None,
            held_for_silence: false,
            end: None,
            pending: Vec::new(),
            drains: Vec::new(),
            drains_compared: None,
            notices: Vec::new(),
            answer: Bytes::new(),
            answer_edition: 0,
        };
        state.take(run, version, announced);
        state
    }

    pub(super) fn take(&mut self, run: &Run, version: u64, announced: &(Generation, Vec<Sha256Hex>, u64)) {
        self.version = version;
        self.standing = run.state();
        self.ended = run.ended();
        let instance = self.claim.as_ref().map(|claim| claim.instance.clone());
        if instance != run.claim.as_ref().map(|claim| claim.instance.clone()) {
            // Another home: what the one before said, and what is stored of it, says nothing of this one.
            self.said = None;
            self.noted = None;
        }
        self.claim = run.claim.as_ref().map(|claim| LiveClaim {
            number: claim.number,
            protocol: claim.protocol,
            instance: claim.instance.clone(),
            home: claim.home.clone(),
            runtime: claim.runtime.clone(),
            spoke: claim.spoke,
            shuts_down: claim.shuts_down.is_some(),
            token: TokenDigest::from(&claim.token),
        });
        self.wait = run.wait.as_ref().map(|wait| (wait.what, wait.until_ms));
        self.boot_token = TokenDigest::from(&run.boot_token);
        // Where anything but a result is waited for, that wait has a limit of its own.
        let silence_counts = run.standing == Standing::Walking
            && run.claim.is_some()
            && self.wait.is_some_and(|(what, _)| matches!(what, WaitFor::Result | WaitFor::Drain));
        self.silence_ms = silence_counts.then_some(run.profile.limits.silence);
        self.held_for_silence = matches!(&run.standing, Standing::Held { why: HeldFor::Silence { .. }, .. });
        self.end = run.end().map(|end| end.ending);
        self.pending =
            run.directives.iter().map(|directive| (directive.id, directive.said.clone())).collect();
        self.drains.clone_from(&run.drains);
        self.notices.clone_from(&run.notices);
        self.prepare(run, announced);
    }

    pub(super) fn prepare(
        &mut self,
        run: &Run,
        (generation, pins, edition): &(Generation, Vec<Sha256Hex>, u64),
    ) {
        // The one that is left after a rotation too: the agent learns from it that the one before counts no more.
        let answer = heartbeat_answer(run, *generation, pins);
        self.answer = serde_json::to_vec(&answer).expect("our own types serialise").into();
        self.answer_edition = *edition;
    }

    /// Keeps what a heartbeat says, and says whether it is news to watchers.
    pub(super) fn say(&mut self, heartbeat: &Heartbeat, heard: WallMs) -> bool {
        let skew_ms = (heartbeat.wall.0 != 0).then(|| heartbeat.wall.0.saturating_sub(heard.0));
        if let Some(said) = &mut self.said
            && said.phase == heartbeat.phase
            && said.activity == cut(&heartbeat.activity)
            && said.drain == cut(&heartbeat.drain)
            && said.drains == drains_of(heartbeat)
            && said.drain_max_age_ms == heartbeat.drain_max_age_ms
            && is_active(&said.active, heartbeat)
            && said.home_failed == heartbeat.home_failed
        {
            said.heard = heard;
            said.skew_ms = skew_ms;
            if said.pins != heartbeat.pins_known {
                said.pins.clone_from(&heartbeat.pins_known);
            }
            return false;
        }
        self.said = Some(Said {
            heard,
            phase: heartbeat.phase.clone(),
            activity: cut(&heartbeat.activity).to_owned(),
            drain: cut(&heartbeat.drain).to_owned(),
            drains: drains_of(heartbeat).to_vec(),
            drain_max_age_ms: heartbeat.drain_max_age_ms,
            active: heartbeat.stage.clone().map(|stage| StageAttempt { stage, attempt: heartbeat.attempt }),
            skew_ms,
            home_failed: heartbeat.home_failed,
            pins: heartbeat.pins_known.clone(),
        });
        true
    }

    /// Whether the attempt that the agent was given waits for the end of a drain, where the run waits as if it were
    /// otherwise.
    pub fn waits_for_drain(&self) -> Option<bool> {
        let said = self.said.as_ref()?;
        let waits = !said.drain.is_empty() && said.active.is_none();
        match self.wait?.0 {
            WaitFor::Result => waits.then_some(true),
            WaitFor::Drain => (!waits).then_some(false),
            WaitFor::Claim | WaitFor::Operator | WaitFor::Reboot | WaitFor::Successor | WaitFor::Farewell => {
                None
            }
        }
    }

    /// True for a message of the current claim. An agent of protocol 1 knows no numbers.
    pub fn is_of_current_claim(&self, number: ClaimNumber) -> bool {
        self.claim
            .as_ref()
            .is_some_and(|claim| claim.number == number || (claim.protocol < 2 && number == ClaimNumber(0)))
    }

    /// How its pod or process ended, as long as no word of its agent's takes that back.
    pub fn end(&self) -> Option<Ending> {
        self.end
    }

    /// Remembers what was stored of the agent.
    pub fn note(&mut self, seen: &AgentSeen) {
        self.noted = Some((seen.seen_day, seen.pins.clone()));
    }

    /// True where a heartbeat is the first that says of the current claim's agent that it shuts down.
    pub fn is_first_of_shutdown(&self, heartbeat: &Heartbeat) -> bool {
        let knows = self.claim.as_ref().is_none_or(|claim| claim.shuts_down);
        heartbeat.shutdown.is_some() && !knows && self.is_of_current_claim(heartbeat.claim)
    }

    /// True where a heartbeat of the current claim changes more than what is known for the moment.
    pub(super) fn must_decide(&self, heartbeat: &Heartbeat) -> bool {
        let spoke = self.claim.as_ref().is_some_and(|claim| claim.spoke);
        let is_news = |report: &DirectiveReport| {
            self.pending.iter().any(|(id, said)| *id == report.id && said.as_ref() != Some(&report.outcome))
        };
        !spoke || self.held_for_silence || self.end.is_some() || heartbeat.directives.iter().any(is_news)
    }
}

/// The drains that a heartbeat names, as many as are kept.
fn drains_of(heartbeat: &Heartbeat) -> &[DrainId] {
    &heartbeat.drains[..heartbeat.drains.len().min(DRAINS_SAID_MAX)]
}

fn is_active(known: &Option<StageAttempt>, heartbeat: &Heartbeat) -> bool {
    match (known, &heartbeat.stage) {
        (Some(known), Some(stage)) => known.stage == *stage && known.attempt == heartbeat.attempt,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// At most [`SAID_BYTES_MAX`] bytes of a text, cut at a character's edge.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(SAID_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
