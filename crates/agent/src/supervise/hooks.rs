//! Runs the hooks of the node: a thread for each, its output in the run's log, its end told to the control loop.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use groundcrew_durable::fault;
use groundcrew_protocol::time::format_span_ms;
use groundcrew_protocol::wire::{LogLevel, LogLine};
use tokio::sync::mpsc;

use super::Agent;
use super::perform::Then;
use super::start::search_path;
use crate::console::Console;
use crate::control::core::{Event, StartHook};
use crate::control::hooks::{FILE, Kept, Which};
use crate::files::write_json;
use crate::points;
use crate::process::tool::{
    self, Confined, Ending, Finished, Leftovers, Output, Stopped, Surroundings, TERM_PATIENCE, Tool,
};
use crate::process::{Cancel, ChildRecords, Launcher};
use crate::spool::Spool;
use crate::stamp::stamp;

/// Bytes of a hook's standard error that are kept, for its last line.
const STDERR_BYTES_MAX: usize = 64 * 1024;
/// Characters of that line that are told.
const LAST_LINE_CHARS_MAX: usize = 200;
/// Variables of the agent's own are not handed on: one of them is its boot token.
const OWN_VARIABLES: &str = "GROUNDCREW_";

/// What the agent has of hooks.
#[derive(Debug, Default)]
pub(super) struct Hooking {
    /// Ends the one that runs.
    running: Option<Cancel>,
    /// What could not be written.
    unwritten: Option<Box<Kept>>,
}

impl Agent {
    /// Writes what is known of hooks; what the disk refuses is tried again, and the home is volatile until then.
    pub(super) async fn keep_hooks(&mut self, kept: Box<Kept>) {
        let (path, content) = (self.home.join(FILE), kept.clone());
        self.hooking.unwritten = None;
        if let Err(error) = self.io.run("writing hooks.json", move || write_json(&path, &*content)).await {
            self.say(LogLevel::Error, crate::errors::chain(&error));
            self.hooking.unwritten = Some(kept);
        }
        fault::point(points::HOOK_KEPT);
    }

    /// Tries again what could not be written.
    pub(super) async fn keep_hooks_again(&mut self) {
        if let Some(kept) = self.hooking.unwritten.take() {
            self.keep_hooks(kept).await;
        }
    }

    pub(super) fn start_hook(&mut self, start: StartHook) -> Then {
        let ended = |why: String| Then::Take(Event::HookEnded(Err(why)));
        if start.which == Which::BeforeDrain && self.hooking.unwritten.is_some() {
            return ended(format!(
                "not begun: the disk takes no {FILE}, which is to say that it has to be undone"
            ));
        }
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => return ended(format!("the process has no file descriptor left: {error}")),
        };
        let which = start.which;
        let run = Run {
            tool: self.tool_of(start),
            cancel: cancel.clone(),
            children: self.children.clone(),
            lines: self.hook_lines(which),
        };
        let events = self.events.clone();
        let spawned = std::thread::Builder::new().name("hook".to_owned()).spawn(move || {
            let mut tells = TellEnd { events, done: Err("its thread broke off".to_owned()) };
            tells.done = run.until_its_end();
            fault::point(points::HOOK_ENDED);
        });
        match spawned {
            Ok(_) => {
                self.hooking.running = Some(cancel);
                fault::point(points::HOOK_BEGUN);
                Then::Go
            }
            Err(error) => ended(format!("the system has no thread to give: {error}")),
        }
    }

    pub(super) fn end_hook(&self) {
        if let Some(cancel) = &self.hooking.running {
            cancel.ask();
        }
    }

    /// Tells of a hook: to the console and, whether the run is over or not, into its log.
    pub(super) fn say_of_hook(&self, which: Which, level: LogLevel, text: &str) {
        let text = format!("hook {}: {text}", which.key());
        self.console.say(level.clone(), &text);
        if !self.core.memory().gone {
            self.lines.send_line(LogLine { ts: stamp(), level, stage: None, text });
        }
    }

    fn tool_of(&self, start: StartHook) -> Tool {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let run = self.settings.run.to_string();
        let values = [("hostname", hostname), ("run", run), ("reason", start.reason)];
        let mut words = start.command.argv.iter().map(|word| filled(word, &values));
        let program = words.next().unwrap_or_default();
        let inherited = std::env::vars_os()
            .filter(|(name, _)| !name.as_encoded_bytes().starts_with(OWN_VARIABLES.as_bytes()));
        let named = |name: &str, value: OsString| (OsString::from(format!("{OWN_VARIABLES}{name}")), value);
        let own = values.iter().map(|(name, value)| named(&name.to_ascii_uppercase(), value.into()));
        let own = own.chain([
            named("HOOK", start.which.key().into()),
            named("HOME", self.home.clone().into_os_string()),
        ]);
        Tool {
            program,
            arguments: words.map(OsString::from).collect(),
            environment: inherited.chain(own).collect(),
            search_path: search_path(),
            deadline: Duration::from_millis(start.command.deadline_ms),
            term_patience: TERM_PATIENCE,
            stdout_bytes_max: 0,
            stderr_bytes_max: STDERR_BYTES_MAX,
            leftovers: Leftovers::Ended,
            confined: Confined::default(),
        }
    }

    fn hook_lines(&self, which: Which) -> tool::Lines {
        let (spool, console) = (self.log.clone(), self.console.clone());
        let is_gone = self.core.memory().gone;
        Arc::new(move |output, text| {
            let level = match output {
                Output::Stdout => LogLevel::Info,
                Output::Stderr => LogLevel::Warn,
            };
            take_line(&spool, &console, is_gone, level, format!("hook {}: {text}", which.key()));
        })
    }
}

fn take_line(spool: &Spool, console: &Console, is_gone: bool, level: LogLevel, text: String) {
    console.say(level.clone(), &text);
    let line = LogLine { ts: stamp(), level, stage: None, text };
    // A line that the spool cannot take is counted there, and the next chunk says so.
    if let (false, Err(error)) = (is_gone, spool.append_line(&line)) {
        console.say(LogLevel::Error, &crate::errors::chain(&error));
    }
}

/// A word of a command with what the agent knows in the place of `{hostname}`, `{run}` and `{reason}`. Other braces stay: a
/// patch in JSON is full of them. One pass, so that a reason in braces stays as it is.
fn filled(word: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let named = values.iter().find_map(|(name, value)| {
            let rest = behind.strip_prefix(name)?.strip_prefix('}')?;
            Some((value, rest))
        });
        match named {
            Some((value, behind)) => {
                text.push_str(value);
                rest = behind;
            }
            None => {
                text.push('{');
                rest = behind;
            }
        }
    }
    text.push_str(rest);
    text
}

/// A hook that is run.
struct Run {
    tool: Tool,
    cancel: Cancel,
    children: Arc<ChildRecords>,
    lines: tool::Lines,
}

impl Run {
    /// Blocks until it has ended. The error says why it did not succeed.
    fn until_its_end(self) -> Result<(), String> {
        let around = Surroundings {
            launcher: &Launcher::this_program(),
            children: &self.children,
            cancel: &self.cancel,
            lines: self.lines,
        };
        match tool::run(&self.tool, &around) {
            Ok(finished) => judged(&finished, self.tool.deadline),
            Err(error) => Err(crate::errors::chain(&error)),
        }
    }
}

/// Exit status 0 is success, whatever it printed.
fn judged(finished: &Finished, deadline: Duration) -> Result<(), String> {
    let how = match (finished.stopped, finished.ending) {
        (Some(Stopped::TimedOut), _) => {
            let deadline = format_span_ms(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
            format!("it was ended at its deadline of {deadline}")
        }
        (Some(Stopped::Cancelled), _) => "it was told to end".to_owned(),
        (None, Ending::Exited(0)) => return Ok(()),
        (None, Ending::Exited(status)) => format!("exit status {status}"),
        (None, Ending::Signalled(signal)) => format!("ended by signal {signal}"),
        (None, Ending::Stuck) => "it was killed and hangs in the kernel".to_owned(),
    };
    let stderr = String::from_utf8_lossy(&finished.stderr.bytes);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    Err(match last {
        Some(last) => {
            format!("{how} ({})", last.trim().chars().take(LAST_LINE_CHARS_MAX).collect::<String>())
        }
        None => how,
    })
}

/// Tells the end of a hook however its thread ends: one that broke off must not stay active.
struct TellEnd {
    events: mpsc::Sender<Event>,
    done: Result<(), String>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        let done = std::mem::replace(&mut self.done, Ok(()));
        // It fails only where the loop has ended, and then nobody asks.
        let _ended_loop = self.events.blocking_send(Event::HookEnded(done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_knows_is_put_into_words_and_other_braces_stay() {
        let values = [("hostname", "n7".to_owned()), ("reason", "asked by {run}".to_owned())];
        let cases = [
            ("{hostname}", "n7"),
            ("node={hostname}.example", "node=n7.example"),
            ("{reason}", "asked by {run}"),
            ("{\"spec\":{\"unschedulable\":true}}", "{\"spec\":{\"unschedulable\":true}}"),
            ("{{hostname}}", "{n7}"),
            ("{hostname", "{hostname"),
            ("{ü}{", "{ü}{"),
            ("", ""),
        ];
        for (word, expected) in cases {
            assert_eq!(filled(word, &values), expected);
        }
    }

    #[test]
    fn the_end_of_a_hook_is_told_also_where_its_thread_breaks_off() {
        let (events, mut waiting) = mpsc::channel(1);
        let tells = TellEnd { events, done: Err("its thread broke off".to_owned()) };
        let thread = std::thread::spawn(move || {
            let _told = tells;
            std::panic::resume_unwind(Box::new("a test breaks it off"));
        });
        assert!(matches!(waiting.blocking_recv(), Some(Event::HookEnded(Err(_)))));
        assert!(thread.join().is_err());
    }
}
