//! How a run without an orchestrator shows on a terminal: one line for each stage, redrawn while it is under way, or
//! plain lines where there is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Verdict;

use super::Progress;

/// Without a terminal, a stage that is under way is mentioned this often.
const MENTION_INTERVAL: Duration = Duration::from_secs(10);
/// Characters of the bar.
const BAR_WIDTH: usize = 20;
/// Width where the terminal does not say.
const WIDTH_DEFAULT: usize = 80;

/// Where progress is shown.
pub(super) struct Screen {
    is_terminal: bool,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    current: Option<Current>,
}

struct Current {
    stage: String,
    began: Instant,
    mentioned: Instant,
    progress: Progress,
}

impl Screen {
    /// The standard error of this process.
    pub(super) fn stderr() -> Screen {
        Screen::on(Box::new(std::io::stderr()), std::io::stderr().is_terminal())
    }

    /// Something that is written to.
    pub(super) fn on(out: Box<dyn Write + Send>, is_terminal: bool) -> Screen {
        Screen { is_terminal, state: Mutex::new(State { out, current: None }) }
    }

    /// A stage begins.
    pub(super) fn begin(&self, stage: &str) {
        let progress = Progress { fraction: 0.0, activity: String::new() };
        let now = Instant::now();
        let current = Current { stage: stage.to_owned(), began: now, mentioned: now, progress };
        self.lock().current = Some(current);
        if self.is_terminal {
            self.tick();
        } else {
            self.line(&format!("{stage}: begins"));
        }
    }

    /// A stage is so far.
    pub(super) fn progress(&self, progress: Progress) {
        if let Some(current) = &mut self.lock().current {
            current.progress = progress;
        }
    }

    /// Time has passed: shows where the stage is.
    pub(super) fn tick(&self) {
        let mut state = self.lock();
        let is_terminal = self.is_terminal;
        let Some(current) = &mut state.current else { return };
        let text = if is_terminal {
            let line = cut(&current.line(), width().saturating_sub(1));
            format!("\r\x1b[K{line}")
        } else if current.mentioned.elapsed() >= MENTION_INTERVAL {
            current.mentioned = Instant::now();
            let percent = current.progress.fraction * 100.0;
            format!("{}: {percent:.0} % {}\n", current.stage, current.progress.activity)
        } else {
            return;
        };
        state.write(&text);
    }

    /// The stage has ended.
    pub(super) fn end(&self, verdict: Verdict, words: &str) {
        let Some(current) = self.lock().current.take() else { return };
        let seconds = current.began.elapsed().as_secs();
        self.line(&format!("{:<14} {verdict:<13} {seconds:>4} s  {words}", current.stage));
    }

    /// A line of its own.
    pub(super) fn line(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.lock().write(&format!("{clear}{}\n", plain(text)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, text: &str) {
        // Nobody looks any more where the terminal is gone; the report is written all the same.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

impl Current {
    fn line(&self) -> String {
        let fraction = self.progress.fraction.clamp(0.0, 1.0);
        let full = (fraction * BAR_WIDTH as f64) as usize;
        let bar = format!("{}{}", "=".repeat(full), " ".repeat(BAR_WIDTH - full));
        let seconds = self.began.elapsed().as_secs();
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let percent = fraction * 100.0;
        let activity = plain(&self.progress.activity);
        format!("{:<14} [{bar}] {percent:>3.0} %  {minutes:02}:{seconds:02}  {activity}", self.stage)
    }
}

/// Width of the terminal behind standard error.
pub(super) fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
    if columns == 0 { WIDTH_DEFAULT } else { usize::from(columns) }
}

/// A text without what a terminal would take for orders.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn cut(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// Keeps what is shown.
    #[derive(Clone, Default)]
    pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn show(is_terminal: bool) -> String {
        let paper = Paper::default();
        let screen = Screen::on(Box::new(paper.clone()), is_terminal);
        screen.begin("CPUStress");
        screen.progress(Progress { fraction: 0.5, activity: "under\x1b[2J load".into() });
        screen.tick();
        screen.end(Verdict::Pass, "pass: 5 pass");
        paper.text()
    }

    #[test]
    fn a_terminal_gets_one_line_that_is_redrawn() {
        let shown = show(true);
        assert_eq!(shown.matches('\n').count(), 1);
        assert!(
            shown.contains(
                "\r\x1b[KCPUStress      [==========          ]  50 %  00:00  under\u{fffd}[2J load"
            )
        );
        assert!(shown.ends_with("\r\x1b[KCPUStress      pass             0 s  pass: 5 pass\n"), "{shown:?}");
    }

    #[test]
    fn without_a_terminal_there_are_plain_lines() {
        let expected = "CPUStress: begins\nCPUStress      pass             0 s  pass: 5 pass\n";
        assert_eq!(show(false), expected);
    }
}
