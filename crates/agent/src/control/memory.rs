//! What the control loop keeps in the agent's home, written whole at every change.

use std::collections::VecDeque;
use std::path::Path;

use groundcrew_client::PINS_MAX;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Generation, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{DirectiveOutcome, DirectiveReport, StageAttempt};
use serde::{Deserialize, Serialize};

/// Certificates that are remembered as replaced: more rotations than a run sees.
const PINS_RETIRED_MAX: usize = 16;

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
    /// Certificates that it has announced before and does so no more: a rotation has put others in their place. They count
    /// no more, also where the settings name them. The latest are last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins_retired: Vec<Sha256Hex>,
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
            pins_retired: Vec::new(),
            other: serde_json::Map::new(),
        }
    }

    /// Takes in the certificates that the orchestrator announces, all of them; false where nothing changed.
    pub fn note_pins(&mut self, announced: &[Sha256Hex]) -> bool {
        if announced.is_empty() || self.pins == announced {
            return false;
        }
        let before = std::mem::replace(&mut self.pins, announced.to_vec());
        self.pins_retired.extend(before);
        let mut seen = std::collections::HashSet::new();
        self.pins_retired.retain(|pin| !announced.contains(pin) && seen.insert(pin.clone()));
        let over = self.pins_retired.len().saturating_sub(PINS_RETIRED_MAX);
        self.pins_retired.drain(..over);
        true
    }

    /// Takes in certificates that are announced, without a word about those that it knows. One that was replaced stays so:
    /// the announcement may be older than that. False where nothing changed.
    pub fn note_more_pins(&mut self, announced: &[Sha256Hex]) -> bool {
        let before = self.pins.len();
        for pin in announced {
            let is_new = !self.pins.contains(pin) && !self.pins_retired.contains(pin);
            if is_new && self.pins.len() < PINS_MAX {
                self.pins.push(pin.clone());
            }
        }
        self.pins.len() > before
    }

    /// The certificates that count, beside those that the settings name.
    pub fn pins_beside(&self, settings: &[Sha256Hex]) -> Vec<Sha256Hex> {
        let all = settings.iter().chain(&self.pins);
        all.filter(|pin| !self.pins_retired.contains(pin)).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_was_rotated_away_counts_no_more() {
        let pin = |byte: u8| Sha256Hex::of(&[byte]);
        let settings = [pin(1), pin(9)];
        let mut memory = Memory::new("r-1".parse().unwrap(), [7; 32]);
        assert_eq!(memory.pins_beside(&settings), settings);
        assert!(memory.note_pins(&[pin(1)]) && !memory.note_pins(&[pin(1)]) && !memory.note_pins(&[]));
        assert!(memory.note_pins(&[pin(1), pin(2)]));
        assert_eq!(memory.pins_beside(&settings), [pin(1), pin(9), pin(1), pin(2)]);
        // The rotation is done: the first is the key that may have been stolen.
        assert!(memory.note_pins(&[pin(2)]));
        let after: Memory = serde_json::from_slice(&serde_json::to_vec(&memory).unwrap()).unwrap();
        assert_eq!(after.pins_beside(&settings), [pin(9), pin(2)], "also for the next agent in this home");
        for next in 3..40 {
            memory.note_pins(&[pin(next - 1), pin(next)]);
            memory.note_pins(&[pin(next)]);
        }
        assert_eq!(memory.pins_retired.len(), PINS_RETIRED_MAX);
        assert_eq!(memory.pins_beside(&[]), [pin(39)]);
        // What is announced again counts again.
        memory.note_pins(&[pin(38)]);
        assert_eq!(memory.pins_beside(&[]), [pin(38)]);
    }

    #[test]
    fn an_announcement_beside_another_answer_adds_and_takes_nothing_away() {
        let pin = |byte: u8| Sha256Hex::of(&[byte]);
        let mut memory = Memory::new("r-1".parse().unwrap(), [7; 32]);
        assert!(memory.note_more_pins(&[pin(1), pin(2)]) && !memory.note_more_pins(&[pin(2), pin(1)]));
        // A late one, from before the announcement, takes nothing away, and one from before the end of the rotation does
        // not bring back what it has replaced.
        assert!(!memory.note_more_pins(&[pin(1)]) && memory.pins_beside(&[]) == [pin(1), pin(2)]);
        assert!(memory.note_pins(&[pin(2)]) && !memory.note_more_pins(&[pin(1), pin(2)]));
        assert_eq!(memory.pins_beside(&[pin(1)]), [pin(2)]);
        let many: Vec<Sha256Hex> = (0..100).map(pin).collect();
        memory.note_more_pins(&many);
        assert_eq!(memory.pins.len(), PINS_MAX);
    }
}
