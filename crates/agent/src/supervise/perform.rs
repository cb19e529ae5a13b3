//! Performs the actions of the control loop, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundcrew_protocol::PROTOCOL;
use groundcrew_protocol::hold::HoldRequest;
use groundcrew_protocol::ids::{ClaimNumber, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimRequest, Hello, HomeKind, Intent, LogLevel, LogLine, OutboxEntry, ResultRequest,
};

use super::Agent;
use super::stage::Running;
use super::start::FromClaim;
use crate::client::Orchestrator;
use crate::control::core::{Action, Call, EndedBy, Event, Failure, Reply};
use crate::control::failure::failure_of;
use crate::control::memory::Memory;
use crate::stamp::{stamp, wall};
use crate::{hold, power};

/// How long outbox and spool may take to be acknowledged before the power goes.
const FLUSH_MS: u64 = 60_000;
/// What follows an action.
pub(super) enum Then {
    /// The next one.
    Go,
    /// An event for the control loop.
    Take(Event),
    /// The end of the agent.
    End,
}

impl Agent {
    /// Takes what only the driver uses out of an event, before the control loop sees it.
    pub(super) fn before(&mut self, event: &Event) {
        if self.core.hear_pins(event) {
            // They count from now on, and for the next agent in this home.
            self.run_pins.replace(self.core.memory().pins_beside(&self.settings.pins));
        }
        match event {
            Event::Answered(Ok(Reply::Claim(answer))) => {
                self.claim_answer = FromClaim::of(answer);
                self.know_time(answer.server_time);
            }
            Event::Answered(Ok(Reply::Hello(answer))) => {
                self.know_time(answer.server_time);
            }
            Event::Heartbeat { answered: Ok(answer), .. } => {
                // It only grows, and an answer may be older than the one before it.
                let known = &mut self.claim_answer.operator_retries;
                *known = answer.operator_retries.max(*known);
            }
            Event::StageEnded => self.finished = self.stage.take().and_then(Running::finish),
            Event::Drain(sight) => self.pass_marker(sight),
            Event::Heartbeat { .. }
            | Event::Answered(_)
            | Event::Announced(_)
            | Event::Start(_)
            | Event::Tick
            | Event::LeaveWanted(_)
            | Event::Flushed(_)
            | Event::HomeFailed
            | Event::KeyInstalled(_)
            | Event::KeyRemoved(_)
            | Event::Reconcile(_)
            | Event::Looked { .. }
            | Event::DrainChanged { .. }
            | Event::HookEnded(_)
            | Event::Stop => {}
        }
    }

    /// How far this machine's clock is from the orchestrator's. A skew is said once, and again where it changes.
    fn know_time(&mut self, server_time: WallMs) {
        let skew_ms = wall().0 - server_time.0;
        let before_ms = std::mem::replace(&mut self.skew_ms, skew_ms);
        if (skew_ms - before_ms).abs() > limits::SKEW_SHOWN_MS {
            let seconds = skew_ms as f64 / 1000.0;
            self.say(
                LogLevel::Warn,
                format!("this machine's clock is {seconds:+.1} s from the orchestrator's"),
            );
        }
    }

    /// Performs one action.
    pub(super) async fn perform(&mut self, action: Action) -> Then {
        match action {
            Action::Persist(memory) => {
                self.persist(memory).await;
            }
            Action::Send(call) => self.send(call).await,
            Action::LookForDrain(look) => self.look_for_drain(look),
            Action::BeginDrain(id, order) => self.change_drain(id, order, true),
            Action::EndDrain(id, order) => self.change_drain(Some(id), order, false),
            Action::KeepHooks(kept) => self.keep_hooks(kept).await,
            Action::StartHook(start) => return self.start_hook(*start),
            Action::EndHook => self.end_hook(),
            Action::SayOfHook(which, level, text) => self.say_of_hook(which, level, &text),
            Action::StartStage(start) => return self.start_stage(*start),
            Action::EndStage(by) => self.end_stage(by),
            Action::KeepOutcome(entry) => self.keep_outcome(entry).await,
            Action::DropOutcome(which) => {
                self.finished = None;
                self.say(
                    LogLevel::Info,
                    format!("{}: the outcome of attempt {} is dropped", which.stage, which.attempt),
                );
            }
            Action::Acknowledge(which) => self.outbox.acknowledge(&which.stage, which.attempt).await,
            Action::Reoffer => self.outbox.reoffer().await,
            Action::ForgetRun => {
                if let Err(error) = self.outbox.forget_run().await {
                    self.say(LogLevel::Error, crate::errors::chain(&error));
                }
            }
            Action::Refuse(which, why) => {
                if let Err(error) = self.outbox.refuse(&which.stage, which.attempt, &why).await {
                    self.say(LogLevel::Error, crate::errors::chain(&error));
                }
            }
            Action::InstallKey { line, expires_at } => {
                // The key's end is written for this machine's clock.
                let ends = WallMs(expires_at.0.saturating_add(self.skew_ms));
                return Then::Take(Event::KeyInstalled(self.change_keys(Some((line, ends))).await));
            }
            Action::RemoveKey(_) => return Then::Take(Event::KeyRemoved(self.change_keys(None).await)),
            Action::Flush => self.flush(),
            Action::Leave(answer) => {
                if let Some(stage) = &self.stage {
                    stage.permit.give(answer);
                }
            }
            Action::PowerOff => self.power_off(),
            Action::Exit => return Then::End,
            Action::Say(level, text) => self.say(level, text),
        }
        Then::Go
    }

    /// Writes the memory. What the disk says goes into the home's health: the agent is volatile from then on, and
    /// says so; what could not be written is tried again.
    pub(super) async fn persist(&mut self, memory: Box<Memory>) {
        let (home, content) = (self.home.clone(), memory.clone());
        self.unwritten = None;
        if let Err(error) = self.io.run("writing run.json", move || content.store(&home)).await {
            self.say(LogLevel::Error, crate::errors::chain(&error));
            self.unwritten = Some(memory);
        }
    }

    /// Tries again what could not be written.
    pub(super) async fn persist_again(&mut self) {
        if let Some(memory) = self.unwritten.take() {
            self.persist(memory).await;
        }
    }

    /// Waits aside for the spools: heartbeats, signals and directives go on meanwhile.
    fn flush(&self) {
        let (forwarder, events) = (self.forwarder.clone(), self.events.clone());
        let health = self.io.health().clone();
        tokio::spawn(async move {
            let whole = forwarder.flush(Duration::from_millis(FLUSH_MS)).await;
            let home_failed = health.failure().map(|_| Event::HomeFailed);
            for event in home_failed.into_iter().chain([Event::Flushed(whole)]) {
                // It fails only where the loop has ended.
                let _ended_loop = events.send(event).await;
            }
        });
    }

    // ---- outcomes --------------------------------------------------------------------------------------------

    /// Keeps a stage's artifacts, before its outcome. One that is over a limit is let go, and that is said.
    async fn keep_artifacts(&self, entry: &OutboxEntry, artifacts: Vec<(String, Vec<u8>)>) {
        for (name, content) in artifacts {
            let (store, stage, attempt) = (self.artifacts.clone(), entry.stage.clone(), entry.attempt);
            let named = name.clone();
            let keep = move || store.keep(&stage, attempt, &named, &content);
            match self.io.run("keeping an artifact", keep).await {
                Ok(None) => self.artifact_kept.notify_one(),
                Ok(Some(why)) => {
                    self.say(LogLevel::Warn, format!("{}: artifact {name} is not kept: {why}", entry.stage))
                }
                Err(error) => self.say(LogLevel::Error, crate::errors::chain(&error)),
            }
        }
    }

    /// Ends the stage in flight; its own words then say the reason that is true.
    fn end_stage(&self, by: EndedBy) {
        let Some(stage) = &self.stage else {
            return;
        };
        // Whether it waits for a leave or not: it gets none any more.
        stage.permit.give(Err("the stage was ended before".to_owned()));
        match by {
            EndedBy::Operator => stage.cancel.ask(),
            EndedBy::Displaced => stage.cancel.ask_because("another claim or attempt took its place"),
            EndedBy::Stop => stage.cancel.ask_because("the agent ends"),
        }
    }

    async fn keep_outcome(&mut self, entry: OutboxEntry) {
        let mut finished = self.finished.take();
        if let Some(finished) = &mut finished {
            self.keep_artifacts(&entry, std::mem::take(&mut finished.outcome.artifacts)).await;
        }
        let result = match finished {
            Some(finished) => ResultRequest {
                claim: Default::default(),
                made_under: entry.made_under,
                stage: entry.stage.clone(),
                attempt: entry.attempt,
                passed: finished.outcome.passed,
                summary: finished.outcome.summary,
                message: finished.outcome.message,
                checks: finished.outcome.checks,
                inventory: finished.outcome.inventory,
                began: finished.began,
                ended: finished.ended,
            },
            None => no_outcome(&entry),
        };
        match self.outbox.put(result).await {
            Ok(put) => self.say(
                LogLevel::Info,
                format!("stage {}: the outcome is kept {}", entry.stage, put.describe()),
            ),
            Err(error) => self.say(LogLevel::Error, crate::errors::chain(&error)),
        }
    }

    // ---- calls -----------------------------------------------------------------------------------------------

    async fn send(&mut self, what: Call) {
        let by_boot_token = match &what {
            Call::Hello => !self.core.memory().claimed,
            Call::Claim { by_boot_token, .. } => *by_boot_token,
            Call::Result { .. } | Call::Intent(_) | Call::Hold { .. } => false,
        };
        let token: Option<TokenText> = match by_boot_token {
            true => self.settings.token.as_ref().map(|token| token.reveal().clone()),
            false => Some(self.core.memory().token.clone()),
        };
        let Some(token) = token else {
            let why = "this agent was given no boot token (GROUNDCREW_TOKEN, groundcrew.token or --token)";
            return self.answer_later(async move { Err(Failure::Unauthorized(why.to_owned())) });
        };
        self.control.set_token(token);
        let to = self.control.clone();
        match what {
            Call::Hello => {
                let (hello, clock) = (self.hello(), self.clock.clone());
                let (console, lines) = (self.console.clone(), self.lines.clone());
                self.answer_later(async move {
                    let asked = Instant::now();
                    let answer = to.hello(&hello).await.map_err(|error| failure_of(&error))?;
                    // Here, where nothing stands between the answer and its meaning, and before any line after it.
                    if let Some((level, text)) = clock.meet(answer.server_time, asked.elapsed()) {
                        console.say(level.clone(), &text);
                        lines.send_line(LogLine { ts: stamp(), level, stage: None, text });
                    }
                    Ok(Reply::Hello(answer))
                });
            }
            Call::Claim { request, .. } => {
                let mut request = ClaimRequest { wall: wall(), ..*request };
                if self.io.health().failure().is_some() {
                    request.home = Some(HomeKind::Volatile);
                }
                self.answer_later(async move {
                    let answer = to.claim(&request).await.map_err(|error| failure_of(&error))?;
                    Ok(Reply::Claim(Box::new(answer)))
                });
            }
            Call::Result { claim, entry } => self.send_result(claim, entry).await,
            Call::Intent(intent) => self.answer_later(async move { send_intent(&to, &intent).await }),
            Call::Hold { claim } => {
                let keys = self.settings.authorized_keys.as_deref();
                let user = keys.and_then(|path| hold::login_of(path, self.settings.hold_user.as_ref()));
                let (ip, host_keys) = (self.core.ip().to_owned(), hold::host_keys(&self.settings.host_keys));
                let request = HoldRequest { claim, ip, host_keys, user };
                self.answer_later(async move {
                    to.hold(&request).await.map(Reply::Hold).map_err(|error| failure_of(&error))
                });
            }
        }
    }

    async fn send_result(&mut self, claim: ClaimNumber, entry: OutboxEntry) {
        let to = self.control.clone();
        let result = match self.outbox.load(&entry.stage, entry.attempt).await {
            Ok(Some(result)) => ResultRequest { claim, ..Arc::unwrap_or_clone(result) },
            // Its file is gone or broken: what is known of it is that nothing can be shown.
            Ok(None) => ResultRequest { claim, ..no_outcome(&entry) },
            Err(error) => {
                let why = crate::errors::chain(&error);
                return self.answer_later(async move { Err(Failure::Soon(why)) });
            }
        };
        self.answer_later(async move {
            let answer = to.result(&result).await.map_err(|error| failure_of(&error))?;
            Ok(Reply::Result(Box::new(answer)))
        });
    }

    fn answer_later(&self, answer: impl Future<Output = Result<Reply, Failure>> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            // It fails only where the loop has ended.
            let _ended_loop = events.send(Event::Answered(answer.await)).await;
        });
    }

    fn hello(&self) -> Hello {
        let facts = self.core.facts();
        Hello {
            serial: facts.serial.clone(),
            macs: facts.macs.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            boot_id: facts.boot_id.clone(),
            instance: Some(facts.instance.clone()),
            home: Some(facts.home.clone()),
            wall: wall(),
        }
    }

    // ---- hold and power --------------------------------------------------------------------------------------

    /// Puts a key in, or takes it out. True where the file is as it should be.
    async fn change_keys(&mut self, key: Option<(String, WallMs)>) -> bool {
        let Some(path) = self.settings.authorized_keys.clone() else {
            // Whoever takes a key out must be told where it was put; nothing was put in by this agent.
            self.say(LogLevel::Warn, "a hold's key is remembered, and the settings name no authorized_keys");
            return key.is_none();
        };
        let (run, user) = (self.settings.run.clone(), self.settings.hold_user.clone());
        let place = path.display().to_string();
        let installs = key.is_some();
        let changed = self.io.run("changing authorized_keys", move || match key {
            Some((lines, expires_at)) => hold::install(&path, user.as_ref(), &run, &lines, expires_at),
            None => hold::remove(&path, user.as_ref(), &run),
        });
        let changed = changed.await;
        let done = changed.is_ok();
        match changed {
            Ok(true) if installs => {
                self.say(LogLevel::Warn, format!("an operator's key may log in: {place}"))
            }
            Ok(true) => self.say(LogLevel::Info, format!("the operator's key is out of {place} again")),
            Ok(false) => {}
            Err(error) => self.say(LogLevel::Error, crate::errors::chain(&error)),
        }
        done
    }

    /// Takes out what agents without a memory of it have left in authorized_keys: one whose home is lost, or that had another
    /// run. Tried until it is done once; what this home remembers is the control loop's affair.
    pub(super) async fn sweep_keys(&mut self) {
        let is_owed = self.keys_unswept.is_some();
        let Some(path) = self.settings.authorized_keys.clone().filter(|_| is_owed) else { return };
        let stays = self.core.memory().hold_key.is_some().then(|| self.settings.run.clone());
        let place = path.display().to_string();
        let user = self.settings.hold_user.clone();
        let swept = move || hold::sweep(&path, user.as_ref(), stays.as_ref());
        match self.io.run("sweeping authorized_keys", swept).await {
            Ok(found) => {
                self.keys_unswept = None;
                if found {
                    self.say(
                        LogLevel::Warn,
                        format!("keys of an earlier hold were left in {place}, and are out"),
                    );
                }
            }
            // It is tried again, and said once.
            Err(error) => {
                let text = crate::errors::chain(&error);
                if self.keys_unswept.as_deref() != Some(text.as_str()) {
                    self.say(LogLevel::Error, text.clone());
                    self.keys_unswept = Some(text);
                }
            }
        }
    }

    fn power_off(&mut self) {
        if !self.settings.allow_power {
            return self
                .say(LogLevel::Error, "the power stays on: this agent's settings do not allow to touch it");
        }
        self.say(LogLevel::Warn, "the power goes now");
        let console = self.console.clone();
        let spawned = std::thread::Builder::new().name("power".to_owned()).spawn(move || {
            if let Err(error) = power::off() {
                console.say(LogLevel::Error, &error.to_string());
            }
        });
        if let Err(error) = spawned {
            self.say(LogLevel::Error, format!("the power stays on: {error}"));
        }
    }
}

async fn send_intent(to: &Orchestrator, intent: &Intent) -> Result<Reply, Failure> {
    let answer = to.intent(intent).await.map_err(|error| failure_of(&error))?;
    if answer.acknowledged {
        Ok(Reply::Intent)
    } else {
        Err(Failure::Refused("it was not acknowledged".to_owned()))
    }
}

/// The outcome of a stage that left none: nothing was checked, which is inconclusive.
fn no_outcome(entry: &OutboxEntry) -> ResultRequest {
    ResultRequest {
        claim: Default::default(),
        made_under: entry.made_under,
        stage: entry.stage.clone(),
        attempt: entry.attempt,
        passed: false,
        summary: "no outcome".to_owned(),
        message: "the stage left no outcome".to_owned(),
        checks: Vec::new(),
        inventory: None,
        began: wall(),
        ended: wall(),
    }
}
