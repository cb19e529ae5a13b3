//! A run on a terminal: a line for each stage, a bar for the one in flight, and the live tail of its log beneath.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::operator::StageView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_report::sign;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::Progress;
use super::quiet::QuietTerminal;
use crate::output::Reader;
use crate::words::{clean, cut, span};

/// Lines of log that are shown where there is room.
const TAIL_LINES: usize = 6;
/// Lines that stay free for the prompt, the head and what was printed before.
const LINES_KEPT: usize = 4;
/// Columns that stay free at the end of a line, so that none fills the last one and wraps.
const COLUMNS_KEPT: usize = 1;
/// A bar is as wide as the room allows, within these.
const BAR_WIDTH: std::ops::RangeInclusive<usize> = 8..=40;
/// Room for what stands beside a bar: sign, blanks, and `1 min 59 s of 2 min, attempt 12`.
const BESIDE_BAR: usize = 42;

/// The lines of a terminal.
pub(super) struct Bars {
    reader: Reader,
    all: MultiProgress,
    head: ProgressBar,
    stages: Vec<StageBar>,
    tail: Vec<ProgressBar>,
    _quiet: QuietTerminal,
}

struct StageBar {
    bar: ProgressBar,
    look: Option<Look>,
}

/// How a stage's line looks. Styles are only set when this changes: a spinner would begin anew each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Ahead,
    InFlight,
    Held,
    Done(Verdict),
}

impl Bars {
    /// No lines yet.
    pub(super) fn new(reader: Reader) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let head = all.add(ProgressBar::no_length().with_style(style("{msg}")));
        Bars { reader, all, head, stages: Vec::new(), tail: Vec::new(), _quiet: QuietTerminal::ask() }
    }

    /// Prints a line above all bars, where it stays.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        self.all.println(text).context("printing")
    }

    /// Draws where the run stands at this moment.
    pub(super) fn draw(&mut self, progress: &Progress, now: WallMs) {
        let Some(view) = progress.view() else { return };
        let summary = &view.summary;
        let standing = if progress.is_lost() { "no connection".to_owned() } else { progress.agent_words() };
        let standing = if standing.is_empty() { "no agent yet".to_owned() } else { standing };
        let head = format!("Run {} on {}: {standing}", summary.run, summary.node);
        self.head.set_message(cut(&head, self.reader.width.saturating_sub(COLUMNS_KEPT)));
        while self.stages.len() < view.stages.len() {
            let bar = self.all.insert(1 + self.stages.len(), ProgressBar::new(1));
            self.stages.push(StageBar { bar, look: None });
        }
        let name_width =
            view.stages.iter().map(|stage| name(&stage.stage).chars().count()).max().unwrap_or(0);
        for (stage, line) in view.stages.iter().zip(&mut self.stages) {
            let look = look(stage, summary.stage.as_ref(), &summary.state);
            if line.look != Some(look) {
                line.bar.set_style(look.style(self.reader, name_width));
                line.look = Some(look);
            }
            line.bar.set_prefix(format!("{:name_width$}", name(&stage.stage)));
            look.fill(stage, &line.bar, now);
        }
        self.draw_tail(progress, view.stages.len());
    }

    fn draw_tail(&mut self, progress: &Progress, stages: usize) {
        let width = self.reader.width.saturating_sub(2 + COLUMNS_KEPT);
        let room = self.reader.height.saturating_sub(stages + LINES_KEPT).min(TAIL_LINES);
        let lines: Vec<&str> = progress.tail().rev().take(room).collect();
        while self.tail.len() < lines.len() {
            let template = if self.reader.colour { "  {msg:.dim}" } else { "  {msg}" };
            let bar = ProgressBar::no_length().with_style(style(template));
            self.tail.push(self.all.add(bar));
        }
        // A tail that was longer keeps its lines, so that the picture does not jump.
        for (index, bar) in self.tail.iter().enumerate() {
            let line = lines.len().checked_sub(index + 1).and_then(|at| lines.get(at));
            bar.set_message(line.map_or_else(String::new, |line| cut(line, width)));
        }
    }

    /// Draws the end; what stays of it, [`Drop`] says.
    pub(super) fn finish(&mut self, progress: &Progress, now: WallMs) {
        self.draw(progress, now);
    }
}

impl Drop for Bars {
    /// However it ended: the stages stay as they are, the tail of the log goes, and what is printed next begins a line.
    fn drop(&mut self) {
        if self.stages.is_empty() {
            return;
        }
        for bar in self.tail.drain(..) {
            bar.finish_and_clear();
        }
        self.head.abandon();
        for line in &self.stages {
            line.bar.abandon();
        }
        // The bars went to the same place; where it is gone, so is what this is for.
        let mut out = std::io::stdout();
        let _gone = out.write_all(b"\n").and_then(|()| out.flush());
    }
}

fn name(stage: &Stage) -> String {
    clean(&stage.to_string())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates here are well-formed")
}

fn look(stage: &StageView, current: Option<&Stage>, state: &State) -> Look {
    if stage.overridden.is_some() {
        return Look::Done(Verdict::Warn);
    }
    let is_current = current == Some(&stage.stage);
    match (state, stage.verdict) {
        (State::At(_), _) if is_current => Look::InFlight,
        (State::FailedHolding, None) if is_current => Look::Held,
        (_, Some(verdict)) => Look::Done(verdict),
        (State::At(_) | State::FailedHolding | State::Completed | State::Cancelled, None) => Look::Ahead,
    }
}

impl Look {
    fn style(self, reader: Reader, name_width: usize) -> ProgressStyle {
        let colour = |colour: &str| if reader.colour { format!(":.{colour}") } else { String::new() };
        match self {
            Look::Ahead => style(&format!("· {{prefix{}}}", colour("dim"))),
            Look::Held => style(&format!("{{msg{}}}", colour("red"))),
            Look::InFlight => {
                let room = reader.width.saturating_sub(BESIDE_BAR + name_width);
                let width = room.clamp(*BAR_WIDTH.start(), *BAR_WIDTH.end());
                let bar = if reader.colour { ".cyan/238" } else { "" };
                let spinner = colour("cyan");
                style(&format!("{{spinner{spinner}}} {{prefix}}  {{bar:{width}{bar}}}  {{msg}}"))
                    .progress_chars("━╸─")
                    .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
            }
            Look::Done(verdict) => {
                let word = match verdict {
                    Verdict::Pass => "green",
                    Verdict::Warn => "yellow",
                    Verdict::Fail => "red",
                    Verdict::Inconclusive => "magenta",
                    Verdict::Skipped => "dim",
                };
                // Of a message alone the colour can be set: the sign goes into it.
                style(&format!("{{msg{}}}", colour(word)))
            }
        }
    }

    /// Writes what changes with time into a line.
    fn fill(self, stage: &StageView, bar: &ProgressBar, now: WallMs) {
        let passed = |began: WallMs, until: WallMs| until.0.saturating_sub(began.0).max(0);
        let attempts =
            if stage.attempts > 1 { format!(", attempt {}", stage.attempts) } else { String::new() };
        match self {
            Look::Ahead => bar.tick(),
            Look::InFlight => {
                let deadline = i64::try_from(stage.deadline_ms).unwrap_or(i64::MAX);
                let passed = stage.began.map_or(0, |began| passed(began, now));
                bar.set_length(stage.deadline_ms.max(1));
                bar.set_position(u64::try_from(passed.min(deadline)).unwrap_or(0));
                bar.set_message(format!("{} of {}{attempts}", span(passed), span(deadline)));
                bar.set_elapsed(Duration::ZERO);
                bar.tick();
            }
            Look::Held => bar.set_message(format!("✗ {}  held without a result{attempts}", bar.prefix())),
            Look::Done(verdict) => {
                let took = match (stage.began, stage.ended) {
                    (Some(began), Some(ended)) => span(passed(began, ended)),
                    (Some(_), None) | (None, Some(_)) | (None, None) => String::new(),
                };
                let name = bar.prefix();
                let text = format!("{} {name}  {:12}  {took}{attempts}", sign(verdict), verdict);
                bar.set_message(text.trim_end().to_owned());
            }
        }
    }
}
