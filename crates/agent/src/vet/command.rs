//! `groundcrew vet`: vets this machine by a profile, without an orchestrator.
//!
//! Exit status: 0 every stage passed or warned, 1 one failed, 2 inconclusive: nobody can say, be it that a check came to
//! nothing, that nothing was checked, that the vet could not begin, or that its report could not be written; 64 usage or a
//! profile that is refused; 130 interrupted (what was done until then is reported). Only a machine that failed is 1, so that
//! a script may send it away for that.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use groundcrew_durable::whole::{Options, write_whole};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::limits::PROFILE_BYTES_MAX;
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::State;
use groundcrew_report::{render_html, render_text};

use super::alone::{Alone, Walked, nothing_was_checked};
use super::terminal::{self, Screen};
use super::work_folder::WorkFolder;
use crate::console;
use crate::probe::Root;
use crate::process::{Cancel, Launcher, sweep};

/// Name of the subcommand.
pub const SUBCOMMAND: &str = "vet";
const USAGE: &str = "usage: groundcrew vet --profile FILE [--report FOLDER] [--json]

Vets this machine by a profile, without an orchestrator, and writes nothing to its disks but the report.
Where a run would be held at a stage that did not pass, a vet goes on and does every stage.

  --profile FILE    the profile, in TOML
  --report FOLDER   where report.html, report.json and raw output of tools go (default: groundcrew-report)
  --json            prints the report as JSON instead of a table

Exit status: 0 passed or warned, 1 failed, 2 inconclusive (also: nothing checked, the vet could not begin, or a
machine that did not fail has no report), 64 usage or a profile that is refused, 130 interrupted.";
const FOLDER_DEFAULT: &str = "groundcrew-report";
/// Where tools are looked for when the environment does not say.
const SEARCH_PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Wider than any line: a log of a build is read later, where nobody can widen it.
const WIDTH_OF_A_PIPE: usize = 64 * 1024;

const FAILED: u8 = 1;
const INCONCLUSIVE: u8 = 2;
const BAD_USAGE: u8 = 64;
const INTERRUPTED: u8 = 130;

#[derive(Debug, PartialEq)]
struct Arguments {
    profile: PathBuf,
    folder: PathBuf,
    json: bool,
}

/// The subcommand: `arguments` is what follows its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            return console::print(USAGE).map_or(ExitCode::from(INCONCLUSIVE), |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            console::complain(format_args!("groundcrew vet: {error}\n{USAGE}"));
            return ExitCode::from(BAD_USAGE);
        }
    };
    let profile = match read_profile(&arguments.profile) {
        Ok(profile) => profile,
        Err(error) => {
            // Neither 1 nor 2: nothing is said of the machine, and another call mends it.
            console::complain(format_args!("groundcrew vet: {error:#}"));
            return ExitCode::from(BAD_USAGE);
        }
    };
    match vet(&arguments, &profile) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            console::complain(format_args!("groundcrew vet: {error:#}"));
            // Whatever kept it from judging: the machine has not failed, and has not passed.
            ExitCode::from(INCONCLUSIVE)
        }
    }
}

/// `None`: help was asked for.
fn parse(arguments: &[OsString]) -> Result<Option<Arguments>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut profile, mut folder, mut json) = (None, PathBuf::from(FOLDER_DEFAULT), false);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("profile") => profile = Some(PathBuf::from(parser.value()?)),
            Long("report") => folder = PathBuf::from(parser.value()?),
            Long("json") => json = true,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    let profile = profile.ok_or("--profile FILE is missing")?;
    Ok(Some(Arguments { profile, folder, json }))
}

fn vet(arguments: &Arguments, profile: &Profile) -> anyhow::Result<u8> {
    let folder = std::path::absolute(&arguments.folder).context("find the current folder")?;
    let place = WorkFolder::open(&folder)?;
    let work = place.path.clone();
    let swept =
        sweep::sweep(&work).with_context(|| format!("read what may still run, in {}", work.display()))?;
    let screen = Arc::new(Screen::stderr());
    for (program, count) in swept.ended {
        screen.line(&format!("ended {count} processes of {program} that an earlier vet left running"));
    }
    let cancel = Cancel::new().context("make the handle that ends stages")?;
    watch_signals(&cancel).context("watch for signals")?;
    let alone = Alone {
        profile,
        root: Root::system(),
        launcher: Launcher::this_program(),
        search_path: std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH_DEFAULT.into()),
        work: &work,
        cancel: &cancel,
        screen,
    };
    let walked = alone.walk();
    let written = write_files(&folder, &walked);
    place.close();
    let printed = print(&walked.report, arguments.json, &folder).context("print the report");
    let lost: Vec<anyhow::Error> = [written, printed].into_iter().filter_map(Result::err).collect();
    for error in &lost {
        console::complain(format_args!("groundcrew vet: {error:#}"));
    }
    Ok(exit_code(&walked.report, lost.is_empty()))
}

fn read_profile(path: &Path) -> anyhow::Result<Profile> {
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("open the profile {}", path.display()))?;
    // One byte more than is allowed: the parser says what is too much.
    file.take(PROFILE_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("read the profile {}", path.display()))?;
    Profile::parse(&text).with_context(|| format!("the profile {} is refused", path.display()))
}

/// SIGINT and SIGTERM end the stage in flight, and with it the walk.
fn watch_signals(cancel: &Cancel) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let cancel = cancel.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        cancel.ask();
    })?;
    Ok(())
}

fn write_files(folder: &Path, walked: &Walked) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(&walked.report).context("write the report as JSON")?;
    let html = render_html(&walked.report).into_bytes();
    let reports = [("report.json", json.as_slice()), ("report.html", html.as_slice())];
    let artifacts = walked.artifacts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    for (name, bytes) in reports.into_iter().chain(artifacts) {
        // The name of a package's stage holds a slash.
        let path = folder.join(name.replace('/', "-"));
        let options = Options { mode_for_new: 0o644 };
        write_whole(&path, bytes, &options).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Prints the report. Whoever closes the pipe has read enough, as `head` has: that is no fault.
fn print(report: &Report, json: bool, folder: &Path) -> std::io::Result<()> {
    match print_to(&mut std::io::stdout().lock(), report, json, folder) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn print_to(
    out: &mut (impl Write + IsTerminal),
    report: &Report,
    json: bool,
    folder: &Path,
) -> std::io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, report)?;
        writeln!(out)?;
        return out.flush();
    }
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = if out.is_terminal() { terminal::width() } else { WIDTH_OF_A_PIPE };
    writeln!(out, "\n{}", render_text(report, width, colour))?;
    writeln!(out, "Report: {}", folder.join("report.html").display())?;
    writeln!(out, "        {}", folder.join("report.json").display())?;
    out.flush()
}

/// What a report is worth to whoever called. One that did not reach its place says nothing good of a machine.
fn exit_code(report: &Report, is_handed_over: bool) -> u8 {
    if report.state == State::Cancelled {
        return INTERRUPTED;
    }
    match report.verdict {
        Verdict::Fail => FAILED,
        Verdict::Inconclusive | Verdict::Skipped => INCONCLUSIVE,
        Verdict::Pass | Verdict::Warn if !is_handed_over => INCONCLUSIVE,
        Verdict::Pass | Verdict::Warn if nothing_was_checked(report) => INCONCLUSIVE,
        Verdict::Pass | Verdict::Warn => 0,
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
