//! What the control loop keeps in the agent's home, written whole at every change.

use std::collections::VecDeque;

use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Generation, RunId, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{DirectiveOutcome, DirectiveReport, StageAttempt};
use serde::{Deserialize, Serialize};

/// What outlives the agent.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The run that this home belongs to.
    pub run: RunId,
    /// The run token that this home made. It is stored before its hash is sent, so that a lost answer is harmless.
    pub token: TokenText,
    /// True once a claim was answered: from then on the run token is the one to show.
    pub claimed: bool,
    /// Greatest claim of the run that this home has known.
    pub known_claim: ClaimNumber,
    /// Which life of the orchestrator's store was last seen.
    pub generation: Generation,
    /// The highest attempt of each stage that this home has started.
    pub started: Vec<StageAttempt>,
    /// Outcomes of the latest directives.
    pub directives: VecDeque<DirectiveReport>,
    /// The line in authorized_keys that a hold has put there and that must be taken out again.
    pub hold_key: Option<String>,
    /// True once the run is gone at the orchestrator (410): nothing is sent any more, power is never touched.
    pub gone: bool,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("run", &self.run)
            .field("token", &"(secret)")
            .field("known_claim", &self.known_claim)
            .field("generation", &self.generation)
            .field("started", &self.started)
            .field("directives", &self.directives)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// A home that knows nothing yet but its run and a run token of 32 random bytes.
    pub fn new(run: RunId, token_bytes: [u8; 32]) -> Memory {
        Memory {
            run,
            token: TokenText::run(token_bytes),
            claimed: false,
            known_claim: ClaimNumber(0),
            generation: Generation(0),
            started: Vec::new(),
            directives: VecDeque::new(),
            hold_key: None,
            gone: false,
        }
    }

    /// True where this home has started that attempt, or a later one, of the stage.
    pub fn has_started(&self, stage: &Stage, attempt: Attempt) -> bool {
        self.started.iter().any(|known| known.stage == *stage && known.attempt >= attempt)
    }

    /// Notes that an attempt is about to start. Bounded by the number of stages of a profile.
    pub fn note_started(&mut self, stage: &Stage, attempt: Attempt) {
        match self.started.iter_mut().find(|known| known.stage == *stage) {
            Some(known) => known.attempt = known.attempt.max(attempt),
            None => {
                if self.started.len() >= limits::STAGES_MAX {
                    self.started.remove(0);
                }
                self.started.push(StageAttempt { stage: stage.clone(), attempt });
            }
        }
    }

    /// What became of a directive, where this home remembers it.
    pub fn outcome_of(&self, id: DirectiveId) -> Option<&DirectiveReport> {
        self.directives.iter().find(|report| report.id == id)
    }

    /// Remembers what became of a directive.
    pub fn note_outcome(
        &mut self,
        id: DirectiveId,
        outcome: DirectiveOutcome,
        reason: &str,
    ) -> DirectiveReport {
        let report = DirectiveReport { id, outcome, reason: reason.to_owned() };
        self.directives.retain(|known| known.id != id);
        self.directives.push_back(report.clone());
        if self.directives.len() > limits::DIRECTIVES_REMEMBERED {
            self.directives.pop_front();
        }
        report
    }
}
