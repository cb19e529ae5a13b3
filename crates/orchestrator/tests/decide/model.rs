//! A plain model of a run: which place it may be in after an input, and what must hold of every document.
//!
//! It knows nothing of directives, plans or tokens, and was written from the design, not from the code.

use std::collections::{BTreeMap, BTreeSet};

use groundcrew_orchestrator::run::decide::{Input, OrderKind, decide};
use groundcrew_orchestrator::run::state::{Fate, HeldFor, Now, Run, Standing, WaitFor};
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::Taken;

/// Where a run stands, in the least words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At a stage.
    Walking(usize),
    /// Held at a stage, and for what.
    Held(usize, Hold),
    Completed,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Silence,
    NeverClaimed,
    Other,
}

pub fn place(run: &Run) -> Place {
    match &run.standing {
        Standing::Walking => Place::Walking(run.at),
        Standing::Held { why: HeldFor::Silence { .. }, .. } => Place::Held(run.at, Hold::Silence),
        Standing::Held { why: HeldFor::NeverClaimed { .. }, .. } => Place::Held(run.at, Hold::NeverClaimed),
        Standing::Held { .. } => Place::Held(run.at, Hold::Other),
        Standing::Completed { .. } => Place::Completed,
        Standing::Cancelled { .. } => Place::Cancelled,
    }
}

/// What the model knows of the past; a restore takes it back with the run.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Number of the claim that counts; 0 for none.
    pub claim: u64,
    /// Attempts that were ever in flight.
    given: BTreeSet<(usize, Attempt)>,
    /// Attempts with their first result.
    firsts: BTreeSet<(usize, Attempt)>,
    /// Stages, the last of which is Reporting.
    stages: usize,
}

/// How a claim number must be met.
#[derive(Debug, PartialEq, Eq)]
pub enum Fence {
    NotClaimed,
    Old,
    Unknown,
    Current,
}

impl Model {
    pub fn new(run: &Run) -> Model {
        Model { stages: run.stages.len(), ..Model::default() }
    }

    pub fn fence(&self, run: &Run, claim: u64) -> Fence {
        match claim {
            _ if self.claim == 0 => Fence::NotClaimed,
            claim if claim < self.claim => Fence::Old,
            claim if claim > self.claim || run.restored => Fence::Unknown,
            _ => Fence::Current,
        }
    }

    /// Where the walk is after a stage was passed or overridden.
    fn after(&self, at: usize) -> Place {
        // Every stage but the last, Reporting, is an agent's here.
        if at + 2 < self.stages { Place::Walking(at + 1) } else { Place::Completed }
    }

    /// A run that was silent walks again once its claim speaks.
    fn spoken(place: Place) -> Place {
        match place {
            Place::Held(at, Hold::Silence) => Place::Walking(at),
            other => other,
        }
    }

    /// True where an operator's order must be taken.
    pub fn takes_order(&self, before: &Run, order: OrderKind, stage: Option<usize>, reason: &str) -> bool {
        match (place(before), order) {
            // No stage of the model's profile writes over a disk.
            (Place::Completed | Place::Cancelled, _) | (_, OrderKind::RetryWithWipe) => false,
            (_, OrderKind::Cancel | OrderKind::Abort) => true,
            (Place::Walking(_), OrderKind::Retry | OrderKind::Override | OrderKind::Release) => false,
            (Place::Held(..), OrderKind::Release) => true,
            (Place::Held(at, _), OrderKind::Retry) => stage.unwrap_or(at) <= at,
            (Place::Held(_, Hold::NeverClaimed), OrderKind::Override) => false,
            (Place::Held(at, _), OrderKind::Override) => stage.unwrap_or(at) == at && !reason.is_empty(),
        }
    }

    /// The places in which the run may be after an input that was taken.
    pub fn places(&self, before: &Run, input: &Input, taken: Option<&Taken>, passes: bool) -> Vec<Place> {
        let was = place(before);
        let spoken = Model::spoken(was);
        let held = |at| Place::Held(at, Hold::Other);
        match (input, was) {
            (
                Input::NewBootToken { .. }
                | Input::Drains { .. }
                | Input::AttemptWaits(_)
                | Input::Restored
                | Input::NoticeSettled { .. }
                | Input::RuntimeEnded(_),
                _,
            ) => vec![was],
            (Input::Hold { .. } | Input::Intent(_) | Input::ShutsDown { .. }, _) => vec![spoken],
            (Input::Heard { directives, .. }, _) if directives.is_empty() => vec![spoken],
            (Input::Heard { .. }, _) => match spoken {
                Place::Walking(at) => vec![spoken, held(at)],
                Place::Held(..) | Place::Completed | Place::Cancelled => vec![spoken],
            },
            (Input::Claim { .. }, _) => match spoken {
                // The crash that was one too many, a fight, or a reboot that proves the interrupt.
                Place::Walking(at) => vec![spoken, held(at), self.after(at)],
                Place::Held(..) | Place::Completed | Place::Cancelled => vec![spoken],
            },
            (Input::Result(_), _) => match (spoken, taken) {
                (Place::Walking(at), Some(Taken::First)) if passes && before.stages[at].resets.is_empty() => {
                    vec![self.after(at)]
                }
                (Place::Walking(at), Some(Taken::First)) => vec![held(at)],
                (_, Some(Taken::First)) => Vec::new(),
                (_, Some(Taken::Repeated | Taken::Late | Taken::Unknown(_)) | None) => vec![spoken],
            },
            (Input::Order { order, stage, .. }, Place::Held(at, _)) => match order {
                OrderKind::Cancel | OrderKind::Abort | OrderKind::Release => vec![Place::Cancelled],
                OrderKind::Override => vec![self.after(at)],
                OrderKind::Retry | OrderKind::RetryWithWipe => {
                    let index =
                        |stage: &Stage| before.stages.iter().position(|known| known.spec.name == *stage);
                    vec![Place::Walking(stage.as_ref().and_then(index).unwrap_or(at))]
                }
            },
            (Input::Order { .. }, _) => vec![Place::Cancelled],
            (Input::Deadline, Place::Walking(at)) => {
                vec![was, held(at), Place::Held(at, Hold::Silence), Place::Held(at, Hold::NeverClaimed)]
            }
            (Input::Deadline, Place::Held(..)) => vec![was, Place::Cancelled],
            (Input::Deadline, Place::Completed | Place::Cancelled) => vec![was],
        }
    }

    /// Checks the document after an input that was taken, and remembers what it shows.
    pub fn learn(
        &mut self,
        before: &Run,
        after: &Run,
        input: &Input,
        taken: Option<&Taken>,
    ) -> Result<(), String> {
        let number = after.claim.as_ref().map_or(0, |claim| claim.number.0);
        let is_claim = matches!(input, Input::Claim { .. });
        ensure(
            number == self.claim || (is_claim && number > self.claim),
            "claim numbers grow, by claims alone",
        )?;
        ensure(after.claims.0 == number, "the highest claim is the current one")?;
        self.claim = number;

        let open = |run: &Run| -> BTreeSet<(usize, Attempt)> {
            let of_stage = |(index, stage): (usize, &groundcrew_orchestrator::run::state::StageRecord)| {
                let open = stage.attempts.iter().filter(|attempt| attempt.fate == Fate::InFlight);
                open.map(|attempt| (index, attempt.number)).collect::<Vec<_>>()
            };
            run.stages.iter().enumerate().flat_map(of_stage).collect()
        };
        let (was_open, is_open) = (open(before), open(after));
        ensure(is_open.len() <= 1, "at most one attempt is in flight")?;
        for (index, attempt) in is_open.difference(&was_open) {
            ensure(*index == after.at, "the attempt in flight is of the stage at which the run stands")?;
            ensure(self.given.insert((*index, *attempt)), "no attempt is given out twice")?;
        }
        if let (Input::Result(request), Some(Taken::First)) = (input, taken) {
            let index = before.stages.iter().position(|stage| stage.spec.name == request.stage).unwrap_or(99);
            ensure(
                was_open.contains(&(index, request.attempt)),
                "only an attempt in flight has a first result",
            )?;
            ensure(!is_open.contains(&(index, request.attempt)), "and is closed by it")?;
            ensure(self.firsts.insert((index, request.attempt)), "no attempt has two first results")?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// What must hold of every document.
pub fn check_document(run: &Run) -> Result<(), String> {
    for stage in &run.stages {
        let numbers: Vec<u32> = stage.attempts.iter().map(|attempt| attempt.number.0).collect();
        ensure(numbers.windows(2).all(|pair| pair[0] < pair[1]), "attempts of a stage are numbered upwards")?;
        ensure(
            numbers.iter().all(|n| *n >= 1 && *n <= stage.attempts_made.0),
            "up to the last that was made",
        )?;
        ensure(stage.attempts.len() <= 32 && stage.resets.len() <= 8, "attempts and resets are bounded")?;
    }
    ensure(
        run.directives.len() <= 16 && run.hands_changed_ms.len() <= 3,
        "directives and hands are bounded",
    )?;
    ensure(run.offered.len() <= run.stages.len() && run.host_keys.len() <= 8, "offers and keys are bounded")?;
    let is_held = matches!(run.standing, Standing::Held { .. });
    ensure(is_held || run.hold_key.is_none(), "no key outlives its hold")?;
    let numbers: Vec<u64> = run.notices.iter().map(|notice| notice.number).collect();
    ensure(
        numbers.len() <= 8 && numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "notices are bounded and numbered upwards",
    )?;
    ensure(run.notices.iter().all(|notice| !notice.to.is_empty()), "a notice is for somebody")?;
    let ids: BTreeMap<u64, usize> = run.directives.iter().map(|d| (d.id.0, 1)).collect();
    ensure(ids.len() == run.directives.len(), "no two directives have one id")?;
    let in_flight = run.attempt().is_some_and(|attempt| attempt.fate == Fate::InFlight);
    let waits_for = run.wait.as_ref().map(|wait| wait.what);
    let fits = match (&run.standing, waits_for) {
        (Standing::Walking, Some(WaitFor::Claim)) => run.claim.is_none() && !in_flight,
        // Nobody waits for the result of an agent that is known to have ended.
        (Standing::Walking, Some(WaitFor::Result)) => run.claim.is_some() && in_flight && run.end().is_none(),
        (Standing::Walking, Some(WaitFor::Drain)) => run.claim.is_some() && in_flight,
        (Standing::Walking, Some(WaitFor::Successor)) => in_flight && run.end().is_some(),
        (Standing::Walking, Some(WaitFor::Reboot)) => run.claim.is_some() && in_flight,
        (Standing::Held { why: HeldFor::Silence { .. }, .. }, Some(WaitFor::Operator)) => in_flight,
        (Standing::Held { .. }, Some(WaitFor::Operator)) => !in_flight,
        (Standing::Completed { .. } | Standing::Cancelled { .. }, Some(WaitFor::Farewell)) => {
            !in_flight && !run.directives.is_empty()
        }
        (Standing::Completed { .. } | Standing::Cancelled { .. }, None) => !in_flight,
        (_, _) => false,
    };
    ensure(fits, "the wait and the attempt go with where the run stands")?;
    let plan_fits = in_flight != run.plan.is_empty() || !in_flight;
    ensure(plan_fits, "an attempt in flight has a plan")?;
    let text = serde_json::to_string(run).map_err(|error| error.to_string())?;
    ensure(text.len() < 100_000, "the document is bounded")?;
    let back: Run = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    ensure(back == *run, "the document is read back as it was written")
}

/// Left to itself, a run ends: every wait has a deadline, and something comes of each.
pub fn check_ends(run: &Run, now: Now) -> Result<(), String> {
    let mut run = run.clone();
    let mut now = now;
    for _ in 0..4 {
        let Some(wait) = run.wait.clone() else {
            return ensure(run.ended().is_some(), "what has not ended waits for something");
        };
        now.listened_ms = now.listened_ms.max(wait.until_ms);
        let change = decide(&run, &Input::Deadline, now).map_err(|refused| refused.to_string())?;
        ensure(change.run != run, "something comes of a wait that is over")?;
        run = change.run;
    }
    ensure(run.ended().is_some() && run.wait.is_none(), "a run that is left to itself ends")
}
