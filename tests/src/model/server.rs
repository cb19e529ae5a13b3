//! The orchestrator of the model: the real `decide` over a store that is a value.

mod checks;
mod drains;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use groundcrew_agent::control::core::{Call, Failure, Reply};
use groundcrew_agent::control::failure::failure_of;
use groundcrew_client::Error;
use groundcrew_orchestrator::api::error::ApiError;
use groundcrew_orchestrator::live::answer::heartbeat_answer;
use groundcrew_orchestrator::run::decide::{
    Answer, Change, HoldSaid, Input, NewRun, OrderKind, Refused, create, decide,
};
use groundcrew_orchestrator::run::state::{Claim, HeldFor, Now, Run, Standing};
use groundcrew_orchestrator::store::{LogChunk, Taken};
use groundcrew_protocol::hold::HoldAnswer;
use groundcrew_protocol::ids::{
    Attempt, ClaimNumber, DirectiveId, DrainId, Generation, RunId, Sha256Hex, TokenText,
};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    self, ClaimRequest, Heartbeat, HeartbeatAnswer, HelloAnswer, Intent, LogRequest, ResultRequest,
};

use super::logs::{HomeId, Ledger, LogStore};

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
    /// A chunk of log from a home, as its body, with the token.
    Log(Bytes, HomeId, Sha256Hex),
}

/// What the orchestrator answers.
#[derive(Debug)]
pub enum Response {
    /// To a control call.
    Control(Result<Reply, Failure>),
    /// To a heartbeat under that claim.
    Heartbeat(ClaimNumber, Result<Box<HeartbeatAnswer>, Failure>),
    /// To a chunk of log.
    Log(Result<(), Error>),
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
    /// What is stored of logs.
    pub logs: LogStore,
    /// Drains of the node that operators want.
    pub drains: Vec<drains::Wanted>,
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
    /// A hook runs on the machine whose request is taken: its agent is not idle.
    pub from_hook: bool,
    /// Intents that were acknowledged: kind, stage, attempt and boot.
    pub acknowledged: Vec<(Intent, Generation)>,
    /// What is known of all lines.
    pub ledger: Ledger,
    /// Every chunk that came to be taken, with how it was; until the first restore, which takes the store back.
    pub traffic: Vec<(LogChunk, Taken)>,
    /// Reboots that proved an interrupt.
    pub proved: u32,
    /// Resets that were seen and that nobody had asked for.
    pub resets_seen: u32,
    /// Reboots that were asked for in vain, and asked for again.
    pub missed: u32,
    /// The latest message of each kind under a claim.
    latest: BTreeMap<&'static str, (Request, u64)>,
    /// How often a claim went to another machine than the one before.
    pub hands: u32,
    /// What the agent last said of drains.
    said: Option<drains::Said>,
    /// How often in a row an agent was heard under its claim that holds a drain whose reason is over.
    overdue: BTreeMap<(ClaimNumber, DrainId), u32>,
    /// How often an attempt was seen to wait for the end of a drain.
    pub waited_for_drains: u32,
}

impl Server {
    /// An orchestrator with one fresh run.
    pub fn new(profile: Profile, boot_token: TokenText) -> Server {
        let id: RunId = "r-model".parse().expect("a run id");
        let now = Now { wall: WallMs(0), listened_ms: 0, heard_ms: 0 };
        let new = NewRun {
            id,
            node: "node-1".parse().expect("a node name"),
            node_is: Default::default(),
            profile,
            boot_token: boot_token.sha256(),
            by: "admin".to_owned(),
            notify: Vec::new(),
        };
        let run = create(new, now).run;
        let store = Store {
            run,
            first: BTreeMap::new(),
            evidence: BTreeSet::new(),
            generation: Generation(1),
            logs: LogStore::default(),
            drains: Vec::new(),
        };
        Server {
            store,
            listened_ms: 0,
            heard_ms: 0,
            wall_skew_ms: 0,
            boot_token,
            broken: Vec::new(),
            told: BTreeMap::new(),
            from_hook: false,
            acknowledged: Vec::new(),
            ledger: Ledger::default(),
            traffic: Vec::new(),
            proved: 0,
            resets_seen: 0,
            missed: 0,
            latest: BTreeMap::new(),
            hands: 0,
            said: None,
            overdue: BTreeMap::new(),
            waited_for_drains: 0,
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
        self.said = None;
    }

    /// Answers a request. `tag` names the outcome that a result carries.
    pub fn handle(&mut self, request: Request, tag: u64) -> Response {
        if let Some(claim) = self.old_claim_of(&request) {
            let before = self.kept();
            let response = self.answer(request, tag);
            self.check_old_claim(claim, &before, &response);
            return response;
        }
        let claims = matches!(request, Request::Claim(..));
        if let Some(kind) = kind_under_claim(&request) {
            self.latest.insert(kind, (request.clone(), tag));
        }
        let response = self.answer(request, tag);
        if claims {
            // Whatever came last under the claim before could as well have come only now.
            for (request, tag) in std::mem::take(&mut self.latest).into_values() {
                if self.old_claim_of(&request).is_some() {
                    self.handle(request, tag);
                }
            }
        }
        response
    }

    fn answer(&mut self, request: Request, tag: u64) -> Response {
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
                let answer = self.decide(Input::Claim { request, protocol: 2, bearer, fleet: Vec::new() });
                if let Ok(change) = &answer {
                    let other = |claim: &Claim| claim.machine.serial != asked.serial;
                    self.hands += u32::from(before.claim.as_ref().is_some_and(other));
                    self.check_token(&before, &asked, &shown);
                    self.check_boots(&before, &asked, change);
                    self.check_crash(&before, &asked, change);
                    self.check_hands(change);
                } else {
                    self.check_elsewhere(&before, &asked, answer.as_ref().err());
                }
                Response::Control(answer.map(|change| {
                    self.heard_ms = self.listened_ms;
                    let Answer::Claim(mut answer) = change.answer else {
                        unreachable!("a claim is answered as one")
                    };
                    answer.generation = self.store.generation;
                    answer.drains = self.wanted();
                    Reply::Claim(answer)
                }))
            }
            Request::Result(request, token) => Response::Control(self.speaks(&token).and_then(|()| {
                self.fences(request.claim);
                let (claim, which) = (request.claim, (request.stage.clone(), request.attempt));
                let before = self.store.run.clone();
                let change = self.decide(Input::Result(request))?;
                let is_first =
                    change.result.as_ref().is_some_and(|result| result.taken == wire::Taken::First);
                self.check_reset_holds(&before, is_first);
                self.hear(claim);
                self.keep(&change, which, tag);
                let Answer::Result(mut answer) = change.answer else {
                    unreachable!("a result is answered as one")
                };
                answer.generation = self.store.generation;
                Ok(Reply::Result(Box::new(answer)))
            })),
            Request::Intent(intent, token) => {
                Response::Control(self.intent(intent, &token).map(|()| Reply::Intent))
            }
            Request::Log(body, home, token) => Response::Log(self.log(&body, home, &token)),
            Request::Hold(claim, token) => Response::Control(self.speaks(&token).and_then(|()| {
                let change = self.decide(Input::Hold { claim, said: HoldSaid::default(), key: None });
                change.map(|_| Reply::Hold(HoldAnswer::new(vec!["key".into()], WallMs(1))))
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
        self.heard_of_drains(heartbeat);
        self.check_directives(heartbeat);
        if let Standing::Held { why: HeldFor::Silence { .. }, .. } = self.store.run.standing {
            self.broken.push("the run is held for silence although its claim speaks".into());
        }
        let answer = heartbeat_answer(&self.store.run, self.store.generation, &[]);
        self.check_told(&answer);
        Ok(answer)
    }

    /// What is acknowledged is in the store by then.
    fn intent(&mut self, intent: Intent, token: &Sha256Hex) -> Result<(), Failure> {
        self.speaks(token)?;
        let claim = intent.claim;
        self.fences(claim);
        let change = self.decide(Input::Intent(intent.clone()))?;
        self.hear(claim);
        self.check_intent(&change, &intent);
        self.acknowledged.push((intent, self.store.generation));
        Ok(())
    }

    /// As `api::logs` takes a chunk: who speaks, under which claim, and then the store.
    fn log(&mut self, body: &[u8], home: HomeId, token: &Sha256Hex) -> Result<(), Error> {
        let request: LogRequest = serde_json::from_slice(body).expect("an agent's message is of its form");
        if self.speaks(token).is_err() {
            return Err(status(&ApiError::token("this token is not one of the run")));
        }
        let LogRequest { claim, stream, seq, lines, gap, closes } = request;
        let run = self.store.run.id.clone();
        let current = self.store.run.claim.as_ref().map_or(ClaimNumber(0), |claim| claim.number);
        if claim != current {
            let refused = if claim > current {
                Refused::UnknownClaim { run, found: claim, current }
            } else {
                Refused::OldClaim { run, found: claim, current }
            };
            return Err(status(&ApiError::from(refused)));
        }
        self.hear(claim);
        let chunk = LogChunk { run, stream, seq, claim, at: WallMs(0), lines, gap, closes };
        let (taken, broken) = self.store.logs.take(&chunk, home, &self.ledger.copies);
        self.broken.extend(broken);
        if self.store.generation == Generation(1) {
            self.traffic.push((chunk, taken));
        }
        match taken {
            Taken::First | Taken::Repeated => Ok(()),
            Taken::OtherContent => Err(status(&ApiError::conflict("other_content", "stored before"))),
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
            Some(_) | None => Err(failure_of(&status(&ApiError::token("this token is not one of the run")))),
        }
    }

    fn keep(&mut self, change: &Change, which: (Stage, Attempt), tag: u64) {
        let Some(result) = &change.result else {
            return self.broken.push("a result was answered and not kept".into());
        };
        match result.taken {
            wire::Taken::First => {
                if let Some(other) = self.store.first.insert(which.clone(), tag) {
                    self.broken
                        .push(format!("{} attempt {} was counted twice ({other}, {tag})", which.0, which.1));
                }
            }
            wire::Taken::Repeated => {
                if !self.store.first.contains_key(&which) {
                    self.broken
                        .push(format!("{} attempt {}: repeated, and there is no first", which.0, which.1));
                }
                self.store.evidence.insert((which.0, which.1, tag));
            }
            wire::Taken::Late | wire::Taken::Unknown(_) => {
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
            Err(refused) => Err(failure_of(&status(&ApiError::from(refused)))),
        }
    }

    /// A pass of the tasks for deadlines and drains.
    pub fn tick(&mut self) {
        self.compare_drains();
        let done = self.decide(Input::Deadline);
        if let Err(failure) = done {
            self.broken.push(format!("a deadline was refused: {}", failure.text()));
        }
        self.check_waits();
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
        self.store.logs.take_back();
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

/// Which kind of message a request is; none of those that are made under no claim.
fn kind_under_claim(request: &Request) -> Option<&'static str> {
    match request {
        Request::Hello | Request::Claim(..) => None,
        Request::Result(..) => Some("result"),
        Request::Intent(..) => Some("intent"),
        Request::Hold(..) => Some("hold"),
        Request::Heartbeat(..) => Some("heartbeat"),
        Request::Log(..) => Some("log"),
    }
}

/// What the agent's client makes of a refusal.
fn status(refusal: &ApiError) -> Error {
    Error::Status { call: "POST".into(), code: refusal.status().as_u16(), body: Box::new(refusal.body()) }
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
