//! The hidden subcommand `run-tool`: what a child is between its fork and its program.
//!
//! A child must be written down before it runs, and nothing but a few system calls may happen between fork and
//! exec. So the agent starts itself again as `run-tool PARENT PROGRAM ARGUMENT…`, writes the number of that process
//! down, and lets it go with one byte:
//!
//! ```text
//! agent:    spawn ── write child.json, fsync ── one byte ──────────────────────▶ watches
//! run-tool: setsid ── die with the parent ── is it still there? ── waits for the byte ── exec PROGRAM
//! ```
//!
//! Where the agent dies before the byte, the pipe closes and nothing ever runs.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "run-tool";
/// The byte that lets a child go: a line end, so that a shell's `read` can stand in for the subcommand in tests.
pub(super) const GO: &[u8] = b"\n";

/// The program that a child is started through.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launcher {
    /// This very program, as it runs: also where its file was replaced or removed meanwhile.
    pub fn this_program() -> Launcher {
        let own = OsString::from(std::process::id().to_string());
        Launcher { program: "/proc/self/exe".into(), arguments: vec![SUBCOMMAND.into(), own] }
    }

    /// Another program. It must do as [`run_tool`] does: wait for a byte on its standard input before it becomes
    /// the program in its arguments.
    pub fn other(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Launcher {
        Launcher { program: program.into(), arguments }
    }

    /// The command that starts `program` with `arguments` through this.
    pub(super) fn command(&self, program: &OsStr, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(program).args(arguments);
        command
    }
}

/// The subcommand: `arguments` is what follows its name. It returns only where the program was not started.
pub fn run_tool(arguments: &[OsString]) -> ExitCode {
    let Err(error) = become_tool(arguments);
    eprintln!("groundcrew {SUBCOMMAND}: {error:#}");
    // As a shell says that a program could not be executed.
    ExitCode::from(126)
}

fn become_tool(arguments: &[OsString]) -> anyhow::Result<std::convert::Infallible> {
    let [parent, program, rest @ ..] = arguments else {
        bail!(
            "expected the number of the parent, a program and its arguments; this is no command for people"
        );
    };
    let parent: i32 = parent
        .to_str()
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("found {parent:?}, expected the number of the parent"))?;
    rustix::process::setsid().context("make a session")?;
    // It holds across exec. It fires when the thread that started this process ends: `tool::run` does not return
    // before this process has ended.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("ask to die with the parent")?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if now != Some(parent) {
        bail!("the parent {parent} is gone");
    }
    let mut byte = [0u8; 1];
    std::io::stdin().lock().read_exact(&mut byte).context("the parent ended before it let this go")?;
    let nothing = std::fs::File::open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("put /dev/null in place of the standard input")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("execute {}", program.display()))
}
