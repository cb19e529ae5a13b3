//! What has been seen of a run that is being followed, and whether it is over. Pure: it is told, and answers.
//!
//! The view is the truth about where the run stands; events are its history, and may tell of a hold that is long over.
//! So only the view ends the walk, and only once the history has been told (`agent` comes right after it).
//!
//! ```text
//!   View, Event … Event, Agent ──▶ caught up ── Event ──▶ wants a view ── View ──▶ over? ── no ──▶ caught up
//!        ▲                                                                           │ yes
//!        └───────────────────────────── Lost ◀── any                                 ▼ End
//! ```

use std::collections::VecDeque;

use anyhow::{Context, Result};
use groundcrew_protocol::operator::{EventView, RunView};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::LogLine;
use serde::Deserialize;

use crate::words::{clean, clock};

/// Lines of log that are kept for the tail: more than any terminal shows of it.
const TAIL_LINES_MAX: usize = 16;

/// How following a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every stage was passed, skipped or overridden.
    Completed,
    /// It was ended without that.
    Cancelled,
    /// It waits for an operator.
    Held,
}

/// Something that was heard.
#[derive(Debug)]
pub(crate) enum Telling {
    /// Where the run stands now.
    View(Box<RunView>),
    /// Something that was decided, now or long ago.
    Event(EventView),
    /// Lines of log, as they come. They are not repeated.
    Log(LogTelling),
    /// What the agent says of itself; first right after the history.
    Agent(AgentTelling),
    /// Events from before this one were swept.
    Gap(GapTelling),
    /// The connection broke.
    Lost(String),
    /// Something of a newer orchestrator.
    Unknown,
}

/// Lines of one stage, or framing lines.
#[derive(Debug, Deserialize)]
pub(crate) struct LogTelling {
    stage: Option<Stage>,
    lines: Vec<LogLine>,
}

/// What the agent says of itself.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AgentTelling {
    agent: Option<String>,
    #[serde(default)]
    activity: String,
}

/// The first event that is still there, or how much was missed because we read too slowly.
#[derive(Debug, Deserialize)]
pub(crate) struct GapTelling {
    first_kept: Option<u64>,
    missed: Option<u64>,
}

/// Understands one event of the stream by its name.
///
/// # Errors
/// Where the data is not what its name says.
pub(crate) fn parse(name: &str, data: &str) -> Result<Telling> {
    let doing = || format!("reading an event `{name}` of the stream");
    Ok(match name {
        "event" => Telling::Event(serde_json::from_str(data).with_context(doing)?),
        "log" => Telling::Log(serde_json::from_str(data).with_context(doing)?),
        "agent" => Telling::Agent(serde_json::from_str(data).with_context(doing)?),
        "gap" => Telling::Gap(serde_json::from_str(data).with_context(doing)?),
        _ => Telling::Unknown,
    })
}

/// A line for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When, where it has a time of its own.
    pub(crate) at: Option<WallMs>,
    /// What.
    pub(crate) text: String,
    /// True where it is worth a line beside bars, too.
    pub(crate) matters: bool,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "{}  {}", clock(at), self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What has been seen.
#[derive(Debug)]
pub(crate) struct Progress {
    through_holds: bool,
    view: Option<RunView>,
    last_event: u64,
    /// True once the history up to the connection has been told.
    is_caught_up: bool,
    is_stale: bool,
    is_lost: bool,
    agent: AgentTelling,
    tail_of: Option<Stage>,
    tail: VecDeque<String>,
}

impl Progress {
    /// Nothing yet.
    pub(crate) fn new(through_holds: bool) -> Progress {
        Progress {
            through_holds,
            view: None,
            last_event: 0,
            is_caught_up: false,
            is_stale: false,
            is_lost: false,
            agent: AgentTelling::default(),
            tail_of: None,
            tail: VecDeque::new(),
        }
    }

    /// Takes in what was heard, and says what to tell people of it.
    pub(crate) fn take(&mut self, telling: Telling) -> Vec<Line> {
        match telling {
            Telling::View(view) => self.take_view(*view),
            Telling::Event(event) => self.take_event(event),
            Telling::Log(log) => self.take_log(log),
            Telling::Agent(agent) => {
                (self.is_caught_up, self.is_stale) = (true, self.is_stale || !self.is_caught_up);
                self.agent = agent;
                Vec::new()
            }
            Telling::Gap(GapTelling { first_kept, missed }) => {
                let swept =
                    first_kept.map(|first| format!("Events before number {first} are no longer kept."));
                let missed = missed.map(|count| {
                    format!("{count} messages came too fast to be read; their lines are in `groundcrewctl run logs`.")
                });
                [swept, missed].into_iter().flatten().map(|text| note(text, true)).collect()
            }
            Telling::Lost(why) => {
                self.is_caught_up = false;
                let is_news = !std::mem::replace(&mut self.is_lost, true);
                let is_news = is_news || self.view.is_none();
                is_news.then(|| note(format!("Connection lost: {}", clean(&why)), true)).into_iter().collect()
            }
            Telling::Unknown => Vec::new(),
        }
    }

    fn take_view(&mut self, view: RunView) -> Vec<Line> {
        let mut lines = Vec::new();
        if std::mem::take(&mut self.is_lost) {
            lines.push(note("Connected again.".to_owned(), true));
        }
        if self.view.is_none() {
            let summary = &view.summary;
            let (run, node, profile) = (&summary.run, &summary.node, &summary.profile);
            lines.push(note(format!("Run {run} of node {node}, profile {profile}"), false));
        }
        self.is_stale = false;
        self.agent = AgentTelling { agent: view.summary.agent.clone(), activity: view.activity.clone() };
        self.view = Some(view);
        lines
    }

    fn take_event(&mut self, event: EventView) -> Vec<Line> {
        // A number that was told already is a repetition, whatever the orchestrator meant by it.
        if event.id <= self.last_event {
            return Vec::new();
        }
        self.last_event = event.id;
        self.is_stale |= self.is_caught_up;
        let by = if ["agent", "orchestrator"].contains(&event.actor.as_str()) {
            String::new()
        } else {
            format!(" (by {})", clean(&event.actor))
        };
        let text = format!("{:13}  {}{by}", clean(&event.kind), clean(&event.text));
        vec![Line { at: Some(event.at), text, matters: false }]
    }

    fn take_log(&mut self, log: LogTelling) -> Vec<Line> {
        if self.tail_of != log.stage {
            self.tail.clear();
            self.tail_of.clone_from(&log.stage);
        }
        let stage = log.stage.map_or_else(|| "-".to_owned(), |stage| clean(&stage.to_string()));
        let mut told = Vec::with_capacity(log.lines.len());
        for line in log.lines {
            let text = clean(&line.text);
            told.push(note(format!("          {stage} | {text}"), false));
            self.tail.push_back(text);
            if self.tail.len() > TAIL_LINES_MAX {
                self.tail.pop_front();
            }
        }
        told
    }

    /// Number of the last event that was told: the next connection goes on after it.
    pub(crate) fn last_event(&self) -> u64 {
        self.last_event
    }

    /// True where something was decided since the view was read.
    pub(crate) fn wants_view(&self) -> bool {
        self.is_caught_up && self.is_stale
    }

    /// Where the run stands, as far as is known.
    pub(crate) fn view(&self) -> Option<&RunView> {
        self.view.as_ref()
    }

    /// What the agent last said that it is busy with; empty where it said nothing.
    pub(crate) fn agent_words(&self) -> String {
        let agent = self.agent.agent.as_deref().unwrap_or("");
        let busy =
            if self.agent.activity.is_empty() || agent == "offline" { agent } else { &self.agent.activity };
        clean(busy)
    }

    /// True where an agent is there that may still have lines to send.
    pub(crate) fn agent_may_write(&self) -> bool {
        let view = self.view.as_ref();
        let agent = view.and_then(|view| view.summary.agent.as_deref());
        agent.is_some_and(|agent| !["offline", "stopped", "error"].contains(&agent))
    }

    /// True while there is no connection.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The last lines of the log of the stage that wrote last.
    pub(crate) fn tail(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.tail.iter().map(String::as_str)
    }

    /// Whether it is over.
    pub(crate) fn end(&self) -> Option<End> {
        if !self.is_caught_up || self.is_stale {
            return None;
        }
        match self.view.as_ref()?.summary.state {
            State::Completed => Some(End::Completed),
            State::Cancelled => Some(End::Cancelled),
            State::FailedHolding if !self.through_holds => Some(End::Held),
            State::FailedHolding | State::At(_) => None,
        }
    }
}

fn note(text: String, matters: bool) -> Line {
    Line { at: None, text, matters }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
