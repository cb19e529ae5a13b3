//! What the control loop keeps in the agent's home, written whole at every change.

use std::collections::VecDeque;
use std::path::Path;

use groundcrew_client::PINS_MAX;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Generation, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{DirectiveOutcome, DirectiveReport, StageAttempt, Unheard};
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
    /// What an agent of this home had to say of its end, until that is known to have arrived; the next claim says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard: Option<Unheard>,
    /// Outcomes of the latest directives.
    #[serde(default)]
    pub directives: VecDeque<DirectiveReport>,
    /// The lines in authorized_keys that a hold has put there and that must be taken out again, one below the other.
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
    /// no more, also where the settings name them, until the settings name them anew. The latest are last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins_retired: Vec<Sha256Hex>,
    /// Certificates that the settings named when an agent last started here; absent in a home of an agent that did not
    /// remember them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins_set: Option<Vec<Sha256Hex>>,
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
            unheard: None,
            directives: VecDeque::new(),
            hold_key: None,
            hold_key_expires: WallMs(0),
            gone: false,
            pins: Vec::new(),
            pins_retired: Vec::new(),
            pins_set: None,
            other: serde_json::Map::new(),
        }
    }

    /// The same, at the start of an agent whose settings name these certificates. One that they did not name at the start
    /// before is the operator's new word, and counts though it was replaced before. That goes to disk with the next change;
    /// until then another start finds the same.
    #[must_use]
    pub fn under_settings(mut self, settings: &[Sha256Hex]) -> Memory {
        if let Some(before) = &self.pins_set {
            self.pins_retired.retain(|pin| before.contains(pin) || !settings.contains(pin));
        }
        self.pins_set = Some(settings.to_vec());
        self
    }

    /// What is to be said of certificates that the settings name and that count no more all the same.
    pub fn notes_on_pins(&self, settings: &[Sha256Hex]) -> Vec<String> {
        let retired = settings.iter().filter(|pin| self.pins_retired.contains(pin));
        let note = |pin| {
            format!(
                "the settings name certificate {pin}, which a rotation has replaced: it counts no more, until an agent was \
                 started with settings without it and then with it again"
            )
        };
        retired.map(note).collect()
    }

    /// Takes in the certificates that the orchestrator announces, all of them; false where nothing changed.
    pub fn note_pins(&mut self, announced: &[Sha256Hex]) -> bool {
        let pins = bounded(announced.iter());
        if pins.is_empty() || self.pins == pins {
            return false;
        }
        let before = std::mem::replace(&mut self.pins, pins);
        self.pins_retired.extend(before);
        let mut seen = std::collections::HashSet::new();
        self.pins_retired.retain(|pin| !announced.contains(pin) && seen.insert(pin.clone()));
        let over = self.pins_retired.len().saturating_sub(PINS_RETIRED_MAX);
        self.pins_retired.drain(..over);
        true
    }

    /// Takes in certificates that are announced, without a word about those that it knows. One that was replaced stays so:
    /// the announcement may be older than that. What is announced comes first, so that a full list is no end of hearing.
    /// False where nothing changed.
    pub fn note_more_pins(&mut self, announced: &[Sha256Hex]) -> bool {
        let counts = |pin: &&Sha256Hex| !self.pins_retired.contains(pin);
        let pins = bounded(announced.iter().filter(counts).chain(&self.pins));
        // In another order they are the same.
        let changes = pins.iter().any(|pin| !self.pins.contains(pin));
        if changes {
            self.pins = pins;
        }
        changes
    }

    /// The certificates that count, with those that the settings name.
    pub fn pins_beside(&self, settings: &[Sha256Hex]) -> Vec<Sha256Hex> {
        let all = self.pins.iter().chain(settings);
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

/// The first [`PINS_MAX`] different ones.
fn bounded<'a>(pins: impl Iterator<Item = &'a Sha256Hex>) -> Vec<Sha256Hex> {
    let mut kept: Vec<Sha256Hex> = Vec::new();
    for pin in pins {
        if kept.len() < PINS_MAX && !kept.contains(pin) {
            kept.push(pin.clone());
        }
    }
    kept
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
        assert_eq!(memory.pins_beside(&settings), [pin(1), pin(2), pin(1), pin(9)]);
        // The rotation is done: the first is the key that may have been stolen.
        assert!(memory.note_pins(&[pin(2)]));
        let after: Memory = serde_json::from_slice(&serde_json::to_vec(&memory).unwrap()).unwrap();
        assert_eq!(after.pins_beside(&settings), [pin(2), pin(9)], "also for the next agent in this home");
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
        // A full list does not keep out what is announced later, nor does that push out what is announced with it.
        assert!(memory.note_more_pins(&[pin(2), pin(200)]) && !memory.note_more_pins(&[pin(200), pin(2)]));
        assert_eq!((memory.pins.len(), &memory.pins[..2]), (PINS_MAX, &[pin(2), pin(200)][..]));
        let twice: Vec<Sha256Hex> = (0..100).map(|at| pin(100 + at / 10)).collect();
        assert!(memory.note_pins(&twice) && !memory.note_pins(&twice));
        assert_eq!(memory.pins, (100..110).map(pin).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_operator_names_anew_counts_whatever_was_announced_before() {
        let pin = |byte: u8| Sha256Hex::of(&[byte]);
        let start = |memory: &Memory, settings: &[Sha256Hex]| {
            let memory: Memory = serde_json::from_slice(&serde_json::to_vec(memory).unwrap()).unwrap();
            memory.under_settings(settings)
        };
        let memory = Memory::new("r-1".parse().unwrap(), [7; 32]);
        let mut memory = start(&memory, &[pin(1)]);
        memory.note_pins(&[pin(1), pin(2)]);
        memory.note_pins(&[pin(2)]);
        // The same settings at another start are no new word, nor are they beside a new one.
        let memory = start(&start(&memory, &[pin(1)]), &[pin(1), pin(3)]);
        assert_eq!(memory.pins_beside(&[pin(1), pin(3)]), [pin(2), pin(3)]);
        let notes = memory.notes_on_pins(&[pin(1), pin(3)]);
        assert!(notes.len() == 1 && notes[0].contains(pin(1).as_str()), "{notes:?}");
        // The next start leaves it out, and one after that names it: that is.
        let memory = start(&start(&memory, &[pin(2)]), &[pin(1)]);
        assert_eq!(memory.pins_beside(&[pin(1)]), [pin(2), pin(1)]);
        assert!(memory.notes_on_pins(&[pin(1)]).is_empty());
        // It stays so, until it is replaced anew.
        let mut memory = start(&memory, &[pin(1)]);
        assert_eq!(memory.pins_beside(&[pin(1)]), [pin(2), pin(1)]);
        memory.note_pins(&[pin(1), pin(2)]);
        memory.note_pins(&[pin(2)]);
        assert_eq!(memory.pins_beside(&[pin(1)]), [pin(2)]);
        // A home of an agent that did not remember its settings cannot tell a new word from an old one.
        let mut before = memory;
        before.pins_set = None;
        assert_eq!(start(&before, &[pin(1)]).pins_beside(&[pin(1)]), [pin(2)]);
    }
}
