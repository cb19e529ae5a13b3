//! `groundcrew drain …`: quiesces the agent of a home, waits for it, and says how it stands.
//!
//! It writes the marker itself, so that a drain can be asked for also while no agent runs; that the agent abides by it, the
//! agent's own word says, over the socket in its home.

mod agent;
mod begin;
mod run;
mod show;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use groundcrew_durable::drain_marker::Principal;
use groundcrew_protocol::time::parse_span_ms;

use crate::console;
use crate::settings::HOME_DEFAULT;

const HELP: &str = "\
groundcrew drain begin [--principal P] [--quiet]    ask the agent to start nothing new; what is in flight ends
groundcrew drain wait [--timeout SPAN]              wait until nothing is active, and keep P's drain alive meanwhile
groundcrew drain cancel [--principal P]             take P's drain off; without P, everybody's
groundcrew drain status [--json]                    whether the agent drains, why, what is active, what is waited for
groundcrew drain run [--timeout SPAN] -- COMMAND    drain, wait, run the command, take the drain off

  --home FOLDER    the agent's home (default GROUNDCREW_HOME, else /var/lib/groundcrew)
  --principal P    who asks (default drain-control; of run: drain-run:PID; of wait where that holds no drain: the newest). A drain holds until the last who asked
                   takes it off, or has not renewed it for the greatest age (GROUNDCREW_DRAIN_MAX_AGE, 1h)
  --quiet          leave the fleet-wide notice out when this drain ends in the agent's end
  --timeout SPAN   of wait and run: how long to wait (default: for ever)

While the agent drains it is neither busy nor drainable: whoever asked waits for active_agents to be 0, as wait does.

Exit status: 0 done, of begin: the agent has confirmed that it drains, of wait: nothing is active; 1 failed; 3 the timeout is
over; 4 no agent has confirmed it, or the drain is over (expired, taken off, of another boot); 64 usage. Of run: the
command's own, or 128 and its signal; 130 where run was told to end before the command ran.";

/// Exit status where the time to wait was over.
const EXIT_TIMEOUT: u8 = 3;
/// Exit status where no agent drains.
const EXIT_NOT_DRAINING: u8 = 4;
/// Exit status of a call that cannot be understood (EX_USAGE of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// How a call ends.
#[derive(Debug)]
enum Ended {
    Done,
    /// The time was over; what was waited for.
    Timeout(String),
    /// No agent drains; why.
    NotDraining(String),
    /// With this status, of a command that was run.
    As(u8),
}

/// What the command line says.
#[derive(Debug, Clone)]
struct Asked {
    home: PathBuf,
    max_age: Option<Duration>,
    principal: Option<Principal>,
    quiet: bool,
    json: bool,
    timeout: Option<Duration>,
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Begin,
    Cancel,
    Status,
    Wait,
    Run,
}

/// Runs the subcommand. `arguments` are those behind it.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let (verb, asked) = match parse(arguments) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return say(HELP).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => {
            console::complain(format_args!("groundcrew drain: {error}\n{HELP}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let ended = match verb {
        Verb::Begin => begin::begin(&asked),
        Verb::Cancel => begin::cancel(&asked),
        Verb::Status => show::status(&asked),
        Verb::Wait => wait::wait(&asked),
        Verb::Run => run::run(&asked),
    };
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::As(status)) => ExitCode::from(status),
        Ok(Ended::Timeout(why)) => {
            console::complain(format_args!("groundcrew drain: the timeout is over; waited for {why}"));
            ExitCode::from(EXIT_TIMEOUT)
        }
        Ok(Ended::NotDraining(why)) => {
            console::complain(format_args!("groundcrew drain: {why}"));
            ExitCode::from(EXIT_NOT_DRAINING)
        }
        Err(error) => {
            console::complain(format_args!("groundcrew drain: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    console::print(text).context("printing")
}

/// `None`: help is wanted.
fn parse(arguments: &[OsString]) -> anyhow::Result<Option<(Verb, Asked)>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let max_age = variable("GROUNDCREW_DRAIN_MAX_AGE").map(|value| {
        let parsed = crate::settings::drain_max_age(&value.to_string_lossy());
        parsed.map_err(|expected| {
            anyhow::anyhow!("GROUNDCREW_DRAIN_MAX_AGE: found {value:?}, expected {expected}")
        })
    });
    let mut asked = Asked {
        home: variable("GROUNDCREW_HOME").map_or_else(|| HOME_DEFAULT.into(), PathBuf::from),
        max_age: max_age.transpose()?,
        principal: None,
        quiet: false,
        json: false,
        timeout: None,
        command: Vec::new(),
    };
    let mut verb = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
            lexopt::Arg::Value(word) if verb.is_none() => verb = Some(verb_of(&word)?),
            lexopt::Arg::Value(first) if verb == Some(Verb::Run) => {
                asked.command = std::iter::once(first).chain(parser.raw_args()?).collect();
            }
            lexopt::Arg::Long("home") => asked.home = parser.value()?.into(),
            lexopt::Arg::Long("principal")
                if may(verb, &[Verb::Begin, Verb::Cancel, Verb::Wait, Verb::Run]) =>
            {
                let text = parser.value()?;
                let parsed = text.to_string_lossy().parse();
                asked.principal = Some(parsed.map_err(|error| anyhow::anyhow!("--principal: {error}"))?);
            }
            lexopt::Arg::Long("quiet") if may(verb, &[Verb::Begin, Verb::Run]) => asked.quiet = true,
            lexopt::Arg::Long("json") if may(verb, &[Verb::Status]) => asked.json = true,
            lexopt::Arg::Long("timeout") if may(verb, &[Verb::Wait, Verb::Run]) => {
                let text = parser.value()?;
                let span = parse_span_ms(&text.to_string_lossy());
                let span = span.map_err(|error| anyhow::anyhow!("--timeout: {error}"))?;
                asked.timeout = Some(Duration::from_millis(span));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let verb = verb.context("found no verb, expected begin, cancel, status, wait or run")?;
    if verb == Verb::Run && asked.command.is_empty() {
        anyhow::bail!("run: found no command, expected one behind --");
    }
    Ok(Some((verb, asked)))
}

fn may(verb: Option<Verb>, verbs: &[Verb]) -> bool {
    verb.is_some_and(|verb| verbs.contains(&verb))
}

fn verb_of(word: &OsString) -> anyhow::Result<Verb> {
    Ok(match word.to_str() {
        Some("begin") => Verb::Begin,
        Some("cancel") => Verb::Cancel,
        Some("status") => Verb::Status,
        Some("wait") => Verb::Wait,
        Some("run") => Verb::Run,
        _ => anyhow::bail!("found {word:?}, expected begin, cancel, status, wait or run"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<(Verb, Asked)>, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_call_says_what_is_asked_and_of_whom() {
        let (verb, asked) = parsed("begin --home /h --principal updater --quiet").unwrap().unwrap();
        assert_eq!((verb, asked.home, asked.quiet), (Verb::Begin, PathBuf::from("/h"), true));
        assert_eq!(asked.principal.unwrap().as_str(), "updater");
        let (verb, asked) = parsed("wait --timeout 90s").unwrap().unwrap();
        assert_eq!((verb, asked.timeout), (Verb::Wait, Some(Duration::from_secs(90))));
        let (verb, asked) = parsed("run --timeout 1m -- sh --quiet -c x").unwrap().unwrap();
        assert_eq!((verb, asked.command.len(), asked.quiet), (Verb::Run, 4, false));
        assert!(parsed("begin --help").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (line, part) in [
            ("", "no verb"),
            ("stop", "expected begin"),
            ("run", "no command"),
            ("status --quiet", "quiet"),
            ("begin --timeout 1s", "timeout"),
            ("wait --timeout soon", "--timeout: found \"soon\""),
            ("begin now", "now"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
