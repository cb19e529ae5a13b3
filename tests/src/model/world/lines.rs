//! Lines of log on their way: written into the real spool, sent by a forwarder of the model's, stored once.

use std::time::Duration;

use groundcrew_agent::control::core::Event;
use groundcrew_agent::forward::{Met, meaning};
use groundcrew_agent::spool::{Answer, Message};
use groundcrew_client::Error;
use groundcrew_orchestrator::store::LogChunk;
use groundcrew_protocol::ids::{ClaimNumber, RunId};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLevel, LogLine, LogRequest};

use super::super::agent::{Machine, UnderWay};
use super::super::folder;
use super::super::logs::lines_of;
use super::super::server::Request;
use super::{Happening, World};

/// A power cut may cost what was written since the last sync, which comes this often.
const SYNC_MS: u64 = 2_000;

impl World {
    fn moment(&self) -> std::time::Instant {
        self.base + Duration::from_millis(self.now_ms)
    }

    /// The agent writes a few lines, of a stage or of its own.
    pub(super) fn write_lines(&mut self, agent: usize, stage: Option<&Stage>, count: u64) {
        if count == 0 {
            return;
        }
        let now = self.moment();
        for _ in 0..count {
            let machine = &mut self.machines[agent];
            let (Some(home), Some(log)) = (machine.home.as_mut(), machine.log.as_ref()) else { return };
            let is_small = home.spool_bytes_max < 1 << 20;
            let line = self.server.ledger.add(home.id);
            let padding = if is_small { 2_000 + self.random.below(4_000) } else { self.random.below(40) };
            let text = format!("L{line} {}", "x".repeat(padding as usize));
            let line_said = LogLine { ts: String::new(), level: LogLevel::Info, stage: stage.cloned(), text };
            if let Err(error) = log.append_line_at(&line_said, now) {
                self.broken.push(format!("line {line} was not taken: {error}"));
            }
            home.unsynced.push(line);
            self.tally.lines += 1;
        }
        let (name, last) = (self.machines[agent].name, self.server.ledger.lines.len());
        self.note(format!("agent {name} writes {count} lines up to {}", last - 1));
        self.plan_forward(agent, limits::LOG_CHUNK_AGE_MS);
        let machine = &mut self.machines[agent];
        if !std::mem::replace(&mut machine.forwarder.syncs, true) {
            let life = machine.life;
            self.put(SYNC_MS, Happening::Sync { agent, life });
        }
    }

    pub(super) fn sync(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        let machine = &mut self.machines[agent];
        machine.forwarder.syncs = false;
        let (Some(home), Some(log)) = (machine.home.as_mut(), machine.log.as_ref()) else { return };
        if let Err(error) = log.sync() {
            self.broken.push(format!("the spool was not synced: {error}"));
        }
        if machine.durable {
            home.synced = folder::lengths(&home.spool);
        }
        home.unsynced.clear();
    }

    /// Has the forwarder look at its spool soon.
    pub(super) fn plan_forward(&mut self, agent: usize, after_ms: u64) {
        let at_ms = (self.now_ms + after_ms).max(self.machines[agent].forwarder.pause_until_ms);
        let planned_ms = &mut self.machines[agent].forwarder.planned_ms;
        if planned_ms.is_none_or(|planned_ms| planned_ms > at_ms) {
            *planned_ms = Some(at_ms);
            let life = self.machines[agent].life;
            self.put(at_ms - self.now_ms, Happening::Forward { agent, life });
        }
    }

    /// Sends the next message, where there is one and nothing is in its way.
    pub(super) fn forward(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        let (now, now_ms) = (self.moment(), self.now_ms);
        let machine = &mut self.machines[agent];
        let forwarder = &mut machine.forwarder;
        if forwarder.planned_ms.is_some_and(|planned_ms| planned_ms <= now_ms) {
            forwarder.planned_ms = None;
        }
        let Some(claim) = machine.core.as_ref().and_then(|core| core.claim()) else { return };
        let waits = forwarder.under_way.is_some() || now_ms < forwarder.pause_until_ms;
        if waits || forwarder.displaced == Some(claim) {
            return;
        }
        let (Some(log), Some(home)) = (machine.log.as_ref(), machine.home.as_ref()) else { return };
        match log.next_message(now) {
            Err(error) => self.broken.push(format!("the spool cannot be read: {error}")),
            Ok(None) => {
                if let Some(due) = log.status().due {
                    let after_ms = due.saturating_duration_since(now).as_millis() as u64;
                    self.plan_forward(agent, after_ms);
                }
            }
            Ok(Some(message)) => {
                forwarder.calls += 1;
                let call = forwarder.calls;
                let (body, id) = (message.body(claim), home.id);
                let chunk = chunk_of(&self.server.store.run.id, &message);
                let text = format!("agent {} sends {} of home {id}", machine.name, describe(&chunk));
                let restores = self.tally.restores;
                forwarder.under_way = Some(UnderWay { call, message, chunk, restores });
                let token = home.memory.token.sha256();
                self.put(limits::SHORT_CALL_TIMEOUT_MS, Happening::LogTimeout { agent, life, call });
                let request = Request::Log(body, id, token);
                let make =
                    || Happening::ToServer { from: agent, life, call, request: request.clone(), tag: 0 };
                self.note(text);
                self.across(make, "a chunk of log");
            }
        }
    }

    pub(super) fn log_timed_out(&mut self, agent: usize, life: u64, call: u64) {
        let is_it =
            |machine: &Machine| machine.forwarder.under_way.as_ref().is_some_and(|one| one.call == call);
        if self.lives(agent, life) && is_it(&self.machines[agent]) {
            self.machines[agent].forwarder.under_way = None;
            self.pause_forward(agent);
        }
    }

    fn pause_forward(&mut self, agent: usize) {
        let pause_ms = limits::BACKOFF_FIRST_MS + self.random.below(limits::BACKOFF_MAX_MS);
        self.machines[agent].forwarder.pause_until_ms = self.now_ms + pause_ms;
        self.plan_forward(agent, pause_ms);
    }

    /// As the agent's own forwarder takes an answer.
    pub(super) fn log_answered(&mut self, agent: usize, call: u64, answered: Result<(), Error>) {
        let claim = self.machines[agent].core.as_ref().and_then(|core| core.claim());
        let forwarder = &mut self.machines[agent].forwarder;
        let Some(sent) = forwarder.under_way.take_if(|one| one.call == call) else { return };
        let answer = match answered {
            Ok(()) => Answer::Taken,
            Err(error) => match meaning(&error) {
                Met::Answered(answer) => answer,
                Met::OldClaim => {
                    forwarder.displaced = claim;
                    return;
                }
                Met::Failed => return self.pause_forward(agent),
            },
        };
        self.tally.chunks_other += u64::from(answer == Answer::OtherContent);
        let name = self.machines[agent].name;
        self.note(format!("agent {name}: chunk {} was met with {answer:?}", sent.chunk.seq));
        self.settle_message(agent, &sent, answer);
        self.plan_forward(agent, 0);
    }

    /// Hands an answer to the spool. What it says is stored is stored, unless a backup has taken its place since.
    fn settle_message(&mut self, agent: usize, sent: &UnderWay, answer: Answer) {
        let UnderWay { message, chunk, restores, .. } = sent;
        let restores = *restores;
        if answer == Answer::Taken {
            for line in lines_of(chunk) {
                self.server.ledger.lines[line].acknowledged = Some(restores);
            }
            if let (Some(_), Some(home)) = (&chunk.gap, &self.machines[agent].home) {
                self.server.ledger.gaps.push((home.id, restores));
            }
            let stored = self.server.store.logs.find(chunk);
            let is_there = stored.is_some_and(|stored| {
                stored.chunk.lines == chunk.lines && stored.chunk.closes == chunk.closes
            });
            if !is_there && restores == self.tally.restores {
                self.broken.push(format!("chunk {} was acknowledged and is not stored", chunk.seq));
            }
        }
        let Some(log) = &self.machines[agent].log else { return };
        if let Err(error) = log.answered(message, answer) {
            self.broken.push(format!("the spool cannot note an answer: {error}"));
        }
    }

    /// At the end the agents that have the claim stop in order, and every spool of theirs empties.
    pub(super) fn empty_spool(&mut self, agent: usize) -> Result<(), String> {
        const MESSAGES_MAX: u32 = 5_000;
        let machine = &mut self.machines[agent];
        machine.forwarder.under_way = None;
        let Some(claim) = machine.core.as_ref().and_then(|core| core.claim()) else { return Ok(()) };
        let (Some(log), Some(home)) = (machine.log.clone(), machine.home.as_ref()) else { return Ok(()) };
        let (id, token, restores) = (home.id, home.memory.token.sha256(), self.tally.restores);
        log.finish();
        for _ in 0..MESSAGES_MAX {
            let next = log.next_message(self.moment()).map_err(|error| error.to_string())?;
            let Some(message) = next else {
                return match log.status().streams {
                    0 => Ok(()),
                    left => Err(format!("{left} streams are left in a spool that has nothing to send")),
                };
            };
            let request = Request::Log(message.body(claim), id, token.clone());
            let super::super::server::Response::Log(answered) = self.server.handle(request, 0) else {
                unreachable!("a chunk of log is answered as one")
            };
            let answer = match answered.as_ref().map_err(meaning) {
                Ok(()) => Answer::Taken,
                Err(Met::Answered(answer)) => answer,
                Err(met) => return Err(format!("the last lines were met with {met:?}")),
            };
            let chunk = chunk_of(&self.server.store.run.id, &message);
            self.settle_message(agent, &UnderWay { call: 0, message, chunk, restores }, answer);
        }
        Err("a spool never empties".into())
    }

    /// Every line of a home that emptied its spool is stored, or what took it can be seen.
    pub(super) fn check_lines(&mut self, agent: usize) -> Result<(), String> {
        let Some(home) = &self.machines[agent].home else { return Ok(()) };
        let logs = &self.server.store.logs;
        let (mut told, mut forgotten) = (0, 0);
        let of_home: Vec<_> = logs.chunks.iter().filter(|chunk| chunk.home == home.id).collect();
        for (number, line) in self.server.ledger.lines.iter().enumerate() {
            if line.home != home.id || line.cut || logs.copies(number) > 0 {
                continue;
            }
            let gap_forgotten =
                |(of, restores): &(usize, u32)| *of == home.id && *restores < self.tally.restores;
            let was_told = line.acknowledged.is_none() && self.server.ledger.gaps.iter().any(gap_forgotten);
            if was_told || line.acknowledged.is_some_and(|restores| restores < self.tally.restores) {
                forgotten += 1; // With the chunk, by the restore, which is told as one.
                continue;
            }
            let behind =
                of_home.iter().position(|chunk| chunk.lines.first().is_some_and(|first| *first > number));
            let before =
                of_home.iter().rposition(|chunk| chunk.lines.last().is_some_and(|last| *last < number));
            let from = before.map_or(0, |before| before + 1);
            let to = behind.map_or(of_home.len(), |behind| behind + 1);
            let is_told = of_home[from.min(to)..to].iter().any(|chunk| chunk.chunk.gap.is_some());
            if !is_told && !self.is_told_by_a_copy(home.id, number) {
                return Err(format!("line {number} of home {} is not stored, and no gap says so", home.id));
            }
            told += 1;
        }
        self.tally.lines_in_gaps += told;
        self.tally.lines_forgotten += forgotten;
        Ok(())
    }

    /// A copy of the home, which has the same streams, may have told the gap first: the same chunk from this one was
    /// then a repeated one. Its place in its stream is right behind lines from before this one.
    fn is_told_by_a_copy(&self, home: usize, number: usize) -> bool {
        self.server.store.logs.streams().values().any(|chunks| {
            let mut before = None;
            chunks.values().any(|chunk| {
                let (first, last) = (chunk.lines.first(), chunk.lines.last());
                let tells = chunk.home != home && chunk.chunk.gap.is_some();
                let fits =
                    before.is_some_and(|before| before < number) && first.is_none_or(|first| *first > number);
                before = last.copied().or(before);
                tells && fits
            })
        })
    }

    /// Only streams whose home is lost, or without the claim, end without their closing mark, where the store was never taken
    /// back. That no number is missing untold was checked with each chunk.
    pub(super) fn check_streams(&mut self) -> Result<(), String> {
        let emptied: Vec<_> = (0..self.machines.len()).filter_map(|agent| self.emptied(agent)).collect();
        for chunks in self.server.store.logs.streams().values() {
            let Some(last) = chunks.values().last() else { continue };
            if last.chunk.closes {
                continue;
            }
            if emptied.contains(&last.home) && self.tally.restores == 0 {
                return Err(format!("a stream of home {} ends without its closing mark", last.home));
            }
            self.tally.streams_open += 1;
        }
        Ok(())
    }

    /// The home of an agent that has the claim, and so has emptied its spool.
    fn emptied(&self, agent: usize) -> Option<usize> {
        let machine = &self.machines[agent];
        machine.core.as_ref().and_then(|core| core.claim())?;
        machine.home.as_ref().map(|home| home.id)
    }

    /// Lines that a power cut may have taken.
    pub(super) fn cut_lines(&mut self, lines: Vec<usize>) {
        for line in lines {
            self.server.ledger.lines[line].cut = true;
        }
    }

    /// Outbox and spool are acknowledged, or the time for that is over.
    pub(super) fn flush(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        let Some((until_ms, below)) = self.machines[agent].flushing else { return };
        let whole = self.machines[agent].is_flushed(below);
        if whole || self.now_ms >= until_ms {
            self.machines[agent].flushing = None;
            return self.step(agent, Event::Flushed(whole));
        }
        self.put(2_000, Happening::Flush { agent, life });
    }
}

/// A chunk for histories: without its stream, whose id is not of the seed.
fn describe(chunk: &LogChunk) -> String {
    let lines = lines_of(chunk);
    let lines = match (lines.first(), lines.last()) {
        (Some(first), Some(last)) => format!("lines {first} to {last}"),
        (_, _) => "no lines".to_owned(),
    };
    let gap = if chunk.gap.is_some() { ", behind a gap" } else { "" };
    let mark = if chunk.closes { ", the closing mark" } else { "" };
    format!("chunk {} ({lines}{gap}{mark})", chunk.seq)
}

fn chunk_of(run: &RunId, message: &Message) -> LogChunk {
    let body = message.body(ClaimNumber(0));
    let request: LogRequest = serde_json::from_slice(&body).expect("an agent's message is of its form");
    let LogRequest { claim, stream, seq, lines, gap, closes } = request;
    LogChunk { run: run.clone(), stream, seq, claim, at: WallMs(0), lines, gap, closes }
}
