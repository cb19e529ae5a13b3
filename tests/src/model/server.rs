//! The orchestrator of the model: the real `decide` over a store that is a value.

use std::collections::{BTreeMap, BTreeSet};

use groundcrew_agent::control::core::{Call, Failure, Reply};
use groundcrew_orchestrator::live::answer::heartbeat_answer;
use groundcrew_orchestrator::run::decide::{
    Answer, Change, Input, NewRun, OrderKind, Refused, create, decide,
};
use groundcrew_orchestrator::run::state::{Fate, HeldFor, Now, Run, Standing};
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Generation, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimRequest, Heartbeat, HeartbeatAnswer, HelloAnswer, HoldAnswer, Intent, ResultRequest, Taken,
};

/// What an agent sends.
#[derive(Debug, Clone)]
pub enum Request {
    /// A hello.
    Hello,
    /// A claim, with the token that it shows.
    Claim(Box<ClaimRequest>, Sha256Hex),
    /// A result, with the token.
    Result(Box<ResultRequest>, Sha256Hex),
    /// An intent, with the token.
    Intent(Intent, Sha256Hex),
    /// A hold, with the token.
    Hold(ClaimNumber, Sha256Hex),
    /// A heartbeat, with the token.
    Heartbeat(Box<Heartbeat>, Sha256Hex),
}

/// What the orchestrator answers.
#[derive(Debug)]
pub enum Response {
    /// To a control call.
    Control(Result<Reply, Failure>),
    /// To a heartbeat under that claim.
    Heartbeat(ClaimNumber, Result<Box<HeartbeatAnswer>, Failure>),
}

/// What survives the orchestrator's death, and goes into a backup.
#[derive(Debug, Clone)]
pub struct Store {
    /// The run.
    pub run: Run,
    /// Results that stand, by stage and attempt, with who made them.
    pub first: BTreeMap<(Stage, Attempt), u64>,
    /// Results that are kept as evidence.
    pub evidence: BTreeSet<(Stage, Attempt, u64)>,
    /// Which life of the store.
    pub generation: Generation,
}

/// The orchestrator.
#[derive(Debug)]
pub struct Server {
    /// What is stored.
    pub store: Store,
    /// Clock of listening.
    pub listened_ms: u64,
    /// When the current claim was last heard.
    pub heard_ms: u64,
    /// How far its wall clock is off.
    pub wall_skew_ms: i64,
    /// The run's boot token, which the world gives to agents.
    pub boot_token: TokenText,
    /// What must hold and did not.
    pub broken: Vec<String>,
    /// How often an idle agent was heard under its claim since a directive was first told.
    told: BTreeMap<(ClaimNumber, DirectiveId), u32>,
}

/// An idle agent settles a directive within so many heartbeats: a network that loses one in seven leaves a few
/// tries, and directives wait for one another.
const TOLD_MAX: u32 = 30;

impl Server {
    /// An orchestrator with one fresh run.
    pub fn new(profile: Profile, boot_token: TokenText) -> Server {
        let id: RunId = "r-model".parse().expect("a run id");
        let now = Now { wall: WallMs(0), listened_ms: 0, heard_ms: 0 };
        let new = NewRun {
            id,
            node: "node-1".parse().expect("a node name"),
            profile,
            boot_token: boot_token.sha256(),
            by: "admin".to_owned(),
        };
        let run = create(new, now).run;
        let store =
            Store { run, first: BTreeMap::new(), evidence: BTreeSet::new(), generation: Generation(1) };
        Server {
            store,
            listened_ms: 0,
            heard_ms: 0,
            wall_skew_ms: 0,
            boot_token,
            broken: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        let wall = WallMs(self.listened_ms as i64 + self.wall_skew_ms);
        Now { wall, listened_ms: self.listened_ms, heard_ms: self.heard_ms }
    }

    /// Time goes by while it listens.
    pub fn listen(&mut self, span_ms: u64) {
        self.listened_ms += span_ms;
    }

    /// It starts to listen, again: every allowance of silence begins anew.
    pub fn start(&mut self) {
        self.heard_ms = self.listened_ms;
    }

    /// Answers a request. `tag` names the outcome that a result carries.
    pub fn handle(&mut self, request: Request, tag: u64) -> Response {
        match request {
            Request::Hello => Response::Control(Ok(Reply::Hello(HelloAnswer {
                protocol: 2,
                generation: self.store.generation,
                server_time: WallMs(0),
                pins: Vec::new(),
            }))),
            Request::Claim(request, bearer) => {
                let before = self.store.run.clone();
                let (asked, shown) = (request.clone(), bearer.clone());
                let answer = self.decide(Input::Claim { request, protocol: 2, bearer });
                if answer.is_ok() {
                    self.check_token(&before, &asked, &shown);
                }
                Response::Control(answer.map(|change| {
                    self.heard_ms = self.listened_ms;
                    let Answer::Claim(mut answer) = change.answer else {
                        unreachable!("a claim is answered as one")
                    };
                    answer.generation = self.store.generation;
                    Reply::Claim(answer)
                }))
            }
            Request::Result(request, token) => Response::Control(self.speaks(&token).and_then(|()| {
                self.fences(request.claim);
                let (claim, which) = (request.claim, (request.stage.clone(), request.attempt));
                let change = self.decide(Input::Result(request))?;
                self.hear(claim);
                self.keep(&change, which, tag);
                let Answer::Result(mut answer) = change.answer else {
                    unreachable!("a result is answered as one")
                };
                answer.generation = self.store.generation;
                Ok(Reply::Result(Box::new(answer)))
            })),
            Request::Intent(intent, token) => Response::Control(
                self.speaks(&token).and_then(|()| self.decide(Input::Intent(intent)).map(|_| Reply::Intent)),
            ),
            Request::Hold(claim, token) => Response::Control(self.speaks(&token).and_then(|()| {
                let change = self.decide(Input::Hold { claim, host_keys: Vec::new() });
                change.map(|_| {
                    Reply::Hold(HoldAnswer { authorized_key: Some("key".into()), expires_at: WallMs(1) })
                })
            })),
            Request::Heartbeat(heartbeat, token) => {
                let claim = heartbeat.claim;
                let answered = self.speaks(&token).and_then(|()| self.beat(&heartbeat));
                Response::Heartbeat(claim, answered.map(Box::new))
            }
        }
    }

    fn beat(&mut self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Failure> {
        self.fences(heartbeat.claim);
        self.decide(Input::Heard { claim: heartbeat.claim, directives: heartbeat.directives.clone() })?;
        self.hear(heartbeat.claim);
        self.check_directives(heartbeat);
        if let Standing::Held { why: HeldFor::Silence { .. }, .. } = self.store.run.standing {
            self.broken.push("the run is held for silence although its claim speaks".into());
        }
        Ok(heartbeat_answer(&self.store.run, self.store.generation, &[]))
    }

    /// A directive is repeated until its outcome is known, and an idle agent soon says it.
    fn check_directives(&mut self, heartbeat: &Heartbeat) {
        let live: Vec<_> = self.store.run.directives.iter().map(|one| (heartbeat.claim, one.id)).collect();
        self.told.retain(|known, _| live.contains(known));
        for known in live {
            let count = self.told.entry(known).or_default();
            *count = if heartbeat.stage.is_none() { *count + 1 } else { 0 };
            if *count > TOLD_MAX {
                self.broken.push(format!("directive {} is never settled", known.1));
            }
        }
    }

    /// A spent boot token is good again only from the machine that used it, on another boot, with the claim silent.
    fn check_token(&mut self, before: &Run, request: &ClaimRequest, bearer: &Sha256Hex) {
        let Some(claim) = before.claim.as_ref().filter(|_| before.boot_token_spent) else {
            return;
        };
        let same_home = request.token_sha256.as_ref() == Some(&claim.token) || *bearer == claim.token;
        let serial = before.machine.as_ref().and_then(|machine| machine.serial.clone());
        let fits = serial == request.serial && claim.boot != request.boot_id;
        if *bearer == before.boot_token && !same_home && !fits {
            self.broken.push(format!("the spent boot token let {:?} in", request.serial));
        }
    }

    fn hear(&mut self, claim: ClaimNumber) {
        if self.store.run.claim.as_ref().is_some_and(|current| current.number == claim) {
            self.heard_ms = self.listened_ms;
        }
    }

    fn speaks(&self, token: &Sha256Hex) -> Result<(), Failure> {
        match &self.store.run.claim {
            Some(claim) if claim.token == *token => Ok(()),
            Some(_) | None => Err(Failure::Unauthorized("this token is not one of the run".into())),
        }
    }

    /// An older claim changes nothing: checked against the run itself, beside what `decide` says.
    fn fences(&mut self, claim: ClaimNumber) {
        let current = self.store.run.claim.as_ref().map_or(ClaimNumber(0), |claim| claim.number);
        if claim < current {
            let input = Input::Heard { claim, directives: Vec::new() };
            if decide(&self.store.run, &input, self.now()).is_ok() {
                self.broken.push(format!("claim {claim} was let in while {current} counts"));
            }
        }
    }

    fn keep(&mut self, change: &Change, which: (Stage, Attempt), tag: u64) {
        let Some(result) = &change.result else {
            return self.broken.push("a result was answered and not kept".into());
        };
        match result.taken {
            Taken::First => {
                if let Some(other) = self.store.first.insert(which.clone(), tag) {
                    self.broken
                        .push(format!("{} attempt {} was counted twice ({other}, {tag})", which.0, which.1));
                }
            }
            Taken::Repeated => {
                if !self.store.first.contains_key(&which) {
                    self.broken
                        .push(format!("{} attempt {}: repeated, and there is no first", which.0, which.1));
                }
                self.store.evidence.insert((which.0, which.1, tag));
            }
            Taken::Late | Taken::Unknown(_) => {
                self.store.evidence.insert((which.0, which.1, tag));
            }
        }
    }

    fn decide(&mut self, input: Input) -> Result<Change, Failure> {
        let before = self.store.run.clone();
        match decide(&before, &input, self.now()) {
            Ok(change) => {
                self.check_change(&before, &change, &input);
                self.store.run = change.run.clone();
                Ok(change)
            }
            Err(refused) => Err(failure_of(&refused)),
        }
    }

    fn check_change(&mut self, before: &Run, change: &Change, input: &Input) {
        let mut broken = |what: String| self.broken.push(format!("{what} (after {input:?})"));
        let after = &change.run;
        if after.claims < before.claims {
            broken("claim numbers went back".into());
        }
        if before.ended().is_some() && after.standing != before.standing {
            broken("an ended run changed".into());
        }
        if after.ended().is_none() && after.wait.is_none() {
            broken("a run that has not ended waits for nothing".into());
        }
        if !change.changed && after != before {
            broken("a change was called none".into());
        }
        let open =
            after.stages.iter().flat_map(|stage| &stage.attempts).filter(|one| one.fate == Fate::InFlight);
        if open.count() > 1 {
            broken("two attempts are in flight".into());
        }
        for stage in &after.stages {
            let mut last = Attempt(0);
            for attempt in &stage.attempts {
                if attempt.number <= last || attempt.number > stage.attempts_made {
                    broken(format!("attempts of {} are out of order", stage.spec.name));
                }
                last = attempt.number;
            }
        }
    }

    /// The deadline task's pass.
    pub fn tick(&mut self) {
        let done = self.decide(Input::Deadline);
        if let Err(failure) = done {
            self.broken.push(format!("a deadline was refused: {}", failure.text()));
        }
    }

    /// An operator's order; refused ones are told.
    pub fn order(&mut self, order: OrderKind, reason: &str) -> Result<(), String> {
        let input = Input::Order { order, stage: None, reason: reason.into(), by: "admin".into() };
        self.decide(input).map(|_| ()).map_err(|failure| failure.text().to_owned())
    }

    /// A new boot token.
    pub fn new_boot_token(&mut self, token: TokenText) {
        let input = Input::NewBootToken { token: token.sha256(), by: "admin".into() };
        if self.decide(input).is_ok() {
            self.boot_token = token;
        }
    }

    /// A backup takes the store's place.
    pub fn restore(&mut self, backup: Store) {
        let generation = Generation(self.store.generation.0 + 1);
        self.store = Store { generation, ..backup };
        if self.decide(Input::Restored).is_err() {
            self.broken.push("a restore was refused".into());
        }
        self.start();
    }

    /// Where the run stands, for messages.
    pub fn describe(&self) -> String {
        let run = &self.store.run;
        let held = match &run.standing {
            Standing::Held { .. } => format!(" ({})", run.reason()),
            Standing::Walking | Standing::Completed { .. } | Standing::Cancelled { .. } => String::new(),
        };
        format!("{}{held} at {} attempt {}", run.state(), run.stage().spec.name, run.stage().attempts_made)
    }
}

/// The failure that the agent's driver makes of a refusal.
fn failure_of(refused: &Refused) -> Failure {
    let text = refused.to_string();
    match refused {
        Refused::OldClaim { .. } => Failure::OldClaim(text),
        Refused::UnknownClaim { .. } | Refused::NotClaimed { .. } => Failure::UnknownClaim(text),
        Refused::ClaimedElsewhere { .. } => Failure::Elsewhere(text),
        Refused::TokenSpent { retry_after_ms: Some(ms), .. } => {
            Failure::NotYet { text, after_s: ms.div_ceil(1_000) }
        }
        Refused::TokenSpent { retry_after_ms: None, .. } | Refused::WrongToken { .. } => {
            Failure::Unauthorized(text)
        }
        Refused::Unfit(_) | Refused::Order(_) => Failure::Refused(text),
    }
}

/// Which call a request is, for histories.
pub fn name_of(call: &Call) -> &'static str {
    match call {
        Call::Hello => "hello",
        Call::Claim { .. } => "claim",
        Call::Result { .. } => "result",
        Call::Intent(_) => "intent",
        Call::Hold { .. } => "hold",
    }
}
