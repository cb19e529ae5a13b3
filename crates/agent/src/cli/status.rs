//! `groundcrew status`: what the agent of a home says of itself, and whether that still holds.
//!
//! It reads `agent-info.json` and asks the kernel about the process that the file names; it calls nobody and changes
//! nothing. Whatever the file holds is somebody's text: it is shown, never obeyed.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use groundcrew_durable::agent_info::{open_own_home, read};
use groundcrew_durable::epoch::{PROC, boot_epoch};
use groundcrew_protocol::agent_info::{AgentInfo, Clocks, FILE_NAME, Staleness, staleness};
use serde_json::{Map, Value, json};

use crate::console;
use crate::info::up_ms;
use crate::process::proc_stat;
use crate::settings::HOME_DEFAULT;
use crate::stamp::wall;

const HELP: &str = "\
groundcrew status [--home FOLDER] [--json]

What the agent of a home says of itself (agent-info.json), and whether that still holds.

  --home FOLDER   its home (default GROUNDCREW_HOME, else /var/lib/groundcrew)
  --json          as JSON, with every field of the file

Exit status: 0 it holds, or the agent has ended and said so; 1 it is stale; 2 there is no such file, or none that can be
read; 64 usage";

/// Exit status of what nobody should rely on.
const EXIT_STALE: u8 = 1;
/// Exit status where there is nothing to show.
const EXIT_NONE: u8 = 2;
/// Exit status of a call that cannot be understood (EX_USAGE of sysexits.h).
const EXIT_USAGE: u8 = 64;

struct Asked {
    home: PathBuf,
    json: bool,
}

/// Runs the subcommand. `arguments` are those behind it.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let asked = match parse(arguments) {
        Ok(Some(asked)) => asked,
        Ok(None) => return print(HELP).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => {
            console::complain(format_args!("groundcrew status: {error}\n{HELP}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let shown = found(&asked.home).and_then(|(fields, judged)| {
        print(if asked.json { in_json(&asked.home, fields, &judged) } else { in_lines(&fields, &judged) })?;
        Ok(judged)
    });
    match shown {
        Ok(Staleness::Final | Staleness::Fresh { .. }) => ExitCode::SUCCESS,
        Ok(Staleness::Stale { .. }) => ExitCode::from(EXIT_STALE),
        Err(error) => {
            console::complain(format_args!("groundcrew status: {error:#}"));
            ExitCode::from(EXIT_NONE)
        }
    }
}

fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    console::print(text).context("printing")
}

/// `None`: help is wanted.
fn parse(arguments: &[OsString]) -> Result<Option<Asked>, lexopt::Error> {
    let from_environment = std::env::var_os("GROUNDCREW_HOME").filter(|home| !home.is_empty());
    let home = from_environment.map_or_else(|| HOME_DEFAULT.into(), PathBuf::from);
    let mut asked = Asked { home, json: false };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("home") => asked.home = parser.value()?.into(),
            lexopt::Arg::Long("json") => asked.json = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(asked))
}

/// The fields of the file, and whether they hold.
fn found(home: &Path) -> anyhow::Result<(Map<String, Value>, Staleness)> {
    let path = home.join(FILE_NAME);
    let opened = open_own_home(home)?;
    let fields = read(opened, &path)?
        .with_context(|| format!("there is no {}: no agent has lived in this home", path.display()))?;
    let info = AgentInfo::of(&fields);
    let clocks = Clocks {
        wall: wall(),
        up_ms: Some(up_ms()),
        epoch: boot_epoch(Path::new(PROC)),
        lives: info.pid.map(|pid| lives(pid, info.pid_start)),
    };
    let judged = staleness(&info, &clocks);
    Ok((fields, judged))
}

/// Whether a process of this number lives, and is the one that started then.
fn lives(pid: u32, start: Option<u64>) -> bool {
    let process = i32::try_from(pid).ok().and_then(proc_stat::read).filter(|process| !process.is_dead());
    process.is_some_and(|process| start.is_none_or(|start| start == process.start))
}

/// The word for a judgement, the age in milliseconds, and the reason.
fn words(judged: &Staleness) -> (&'static str, Option<u64>, &str) {
    match judged {
        Staleness::Final => ("final", None, ""),
        Staleness::Fresh { age_ms } => ("fresh", Some(*age_ms), ""),
        Staleness::Stale { age_ms, why } => ("stale", *age_ms, why),
    }
}

fn in_json(home: &Path, fields: Map<String, Value>, judged: &Staleness) -> String {
    let phase = AgentInfo::of(&fields).shown_phase();
    let (is, age_ms, why) = words(judged);
    let shown = json!({
        "home": home.to_string_lossy(),
        "phase": phase.as_ref().map(|phase| phase.as_str()),
        "staleness": {"is": is, "age_ms": age_ms, "why": why},
        "file": fields,
    });
    format!("{shown:#}")
}

fn in_lines(fields: &Map<String, Value>, judged: &Staleness) -> String {
    let info = AgentInfo::of(fields);
    let (_, age_ms, why) = words(judged);
    let stage = info.stage.as_ref().map(|stage| match info.attempt {
        Some(attempt) => format!("{stage}, attempt {}", attempt.0),
        None => stage.to_string(),
    });
    let seen = info.last_seen.map(|seen| match age_ms {
        Some(age_ms) => format!("{seen}, {} s ago", age_ms / 1000),
        None => seen.to_string(),
    });
    let runtime =
        [info.runtime.as_deref(), info.runtime_id.as_deref()].map(Option::unwrap_or_default).join(" ");
    let rows = [
        ("phase", info.shown_phase().map(|phase| phase.as_str().to_owned())),
        ("activity", info.activity.as_ref().map(|activity| activity.as_str().to_owned())),
        ("detail", info.detail.clone()),
        ("run", info.run.as_ref().map(ToString::to_string)),
        ("stage", stage),
        ("claim", info.claim.map(|claim| claim.0.to_string())),
        ("runtime", Some(runtime.trim().to_owned())),
        ("container", info.container_status.clone()),
        ("epoch", info.epoch.clone()),
        ("last seen", seen),
        ("stale", Some(why.to_owned())),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        writeln!(text, "{name:10} {}", plain(&value)).expect("writing to a String never fails");
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_shown_and_never_obeyed() {
        let Value::Object(fields) = json!({"phase": "running", "activity": "executing", "stage": "GPU", "attempt": 2,
            "detail": "red \u{1b}[31m\nphase      stopped", "runtime": "local", "last_seen": "2026-01-01T00:00:00Z"})
        else {
            unreachable!("it is an object")
        };
        let judged = Staleness::Stale { age_ms: Some(31_000), why: "it is old".to_owned() };
        let shown = in_lines(&fields, &judged);
        let expected = "phase      running\nactivity   executing\ndetail     red \u{fffd}[31m\u{fffd}phase      stopped\n\
            stage      GPU, attempt 2\nruntime    local\nlast seen  2026-01-01T00:00:00.000Z, 31 s ago\nstale      it is old";
        assert_eq!(shown, expected);
        let shown: Value = serde_json::from_str(&in_json(Path::new("/h"), fields.clone(), &judged)).unwrap();
        assert_eq!((&shown["file"], &shown["staleness"]["is"]), (&Value::Object(fields), &json!("stale")));
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let pid = std::process::id();
        let start = proc_stat::read(i32::try_from(pid).unwrap()).unwrap().start;
        assert!(lives(pid, Some(start)) && lives(pid, None));
        assert!(!lives(pid, Some(start + 1)) && !lives(4_194_305, None));
    }

    #[test]
    fn an_argument_that_nobody_knows_is_refused() {
        for wrong in [&["--hom", "/x"][..], &["x"], &["--home"]] {
            assert!(parse(&wrong.iter().map(OsString::from).collect::<Vec<_>>()).is_err(), "{wrong:?}");
        }
        let asked = parse(&["--home=/x".into(), "--json".into()]).unwrap().unwrap();
        assert_eq!((asked.home.as_path(), asked.json), (Path::new("/x"), true));
    }
}
