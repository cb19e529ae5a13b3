//! What the control loop keeps in the agent's home, written whole at every change.

use std::collections::VecDeque;
use std::path::Path;

use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Generation, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{DirectiveOutcome, DirectiveReport, StageAttempt};
use serde::{Deserialize, Serialize};

/// Its name in the home.
pub const FILE: &str = "run.json";

/// What outlives the agent.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The run that this home belongs to.
    pub run: RunId,
    /// The run token that this home made. It is stored before its hash is sent, so that a lost answer is harmless.
    pub token: TokenText,
    /// True once a claim was answered: from then on the run token is the one to show.
    #[serde(default)]
    pub claimed: bool,
    /// Greatest claim of the run that this home has known.
    #[serde(default)]
    pub known_claim: ClaimNumber,
    /// Which life of the orchestrator's store was last seen.
    #[serde(default)]
    pub generation: Generation,
    /// The highest attempt of each stage that this home has started.
    #[serde(default)]
    pub started: Vec<StageAttempt>,
    /// The attempt that was in flight when an agent of this home was asked to end; the next claim says so.
    #[serde(default)]
    pub stopped: Option<StageAttempt>,
    /// Outcomes of the latest directives.
    #[serde(default)]
    pub directives: VecDeque<DirectiveReport>,
    /// The line in authorized_keys that a hold has put there and that must be taken out again.
    #[serde(default)]
    pub hold_key: Option<String>,
    /// When that line must be gone, on the orchestrator's clock.
    #[serde(default)]
    pub hold_key_expires: WallMs,
    /// True once the run is gone at the orchestrator (410): nothing is sent any more, power is never touched.
    #[serde(default)]
    pub gone: bool,
    /// Certificates that the orchestrator has announced; they count beside those of the settings.
    #[serde(default)]
    pub pins: Vec<Sha256Hex>,
    /// What a newer version wrote, kept for it.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
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
    /// Writes it into the home at `home`. Blocks: for the I/O thread.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn store(&self, home: &Path) -> Result<(), groundcrew_durable::Error> {
        crate::files::write_json(&home.join(FILE), self)
    }

    /// A home that knows nothing yet but its run and a run token of 32 random bytes.
    pub fn new(run: RunId, token_bytes: [u8; 32]) -> Memory {
        Memory {
            run,
            token: TokenText::run(token_bytes),
            claimed: false,
            known_claim: ClaimNumber(0),
            generation: Generation(0),
            started: Vec::new(),
            stopped: None,
            directives: VecDeque::new(),
            hold_key: None,
            hold_key_expires: WallMs(0),
            gone: false,
            pins: Vec::new(),
            other: serde_json::Map::new(),
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
