//! The programs that `up` starts: how they are tied to this process, waited for and ended.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use groundcrew_protocol::ids::TokenText;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::folders::{AGENT_LOG, Folders, ORCHESTRATOR_LOG};
use super::orphans;
use crate::output::say_aside;

/// An orchestrator with an empty folder listens within a second; a busy machine may take longer.
const START_WAIT: Duration = Duration::from_secs(60);
/// After SIGTERM a program ends what it is at. Past this it is killed.
const END_WAIT: Duration = Duration::from_secs(15);

/// Whether a program may outlive us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// It dies with us, also where we are killed.
    ToUs,
    /// It stays when it is left.
    Loose,
}

/// A program that runs.
pub(super) struct Child {
    name: &'static str,
    child: tokio::process::Child,
}

impl Child {
    /// Starts a program in a process group of its own: a Ctrl-C of the terminal's reaches us alone, and we end the
    /// programs in order.
    fn start(name: &'static str, mut command: Command, tie: Tie) -> Result<Child> {
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        if tie == Tie::ToUs {
            tie_to_us(&mut command);
        }
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Child { name, child })
    }

    /// Its process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has ended by itself, and says how.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => words(status),
            Err(error) => format!("its status is not known: {error}"),
        }
    }

    /// Asks it to end, and kills it where it does not in time, or as soon as `at_once` comes. What it leaves running when it is
    /// killed is ended too; what it leaves by itself, as a service that a package has started, is meant to stay.
    pub(super) async fn end<T>(mut self, at_once: impl Future<Output = T>) {
        self.signal(Signal::TERM);
        let killed = tokio::select! {
            ended = timeout(END_WAIT, self.child.wait()) => ended.is_err(),
            _ = at_once => true,
        };
        if killed {
            say_aside(&format!("groundcrewctl: {} did not end by itself and is killed", self.name));
            self.signal(Signal::KILL);
            if let Err(error) = self.child.wait().await {
                say_aside(&format!("groundcrewctl: waiting for {}: {error}", self.name));
            }
            orphans::end_adopted().await;
        }
    }

    /// Lets it run on without us.
    pub(super) fn leave(self) {
        // Forgotten, because one that is dropped is killed.
        std::mem::forget(self.child);
    }

    fn signal(&self, signal: Signal) {
        // Without an id it has ended and was waited for; the number may be another process's by now.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = id.map(|id| kill_process(id, signal)) {
            say_aside(&format!("groundcrewctl: signalling {}: {error}", self.name));
        }
    }
}

/// Has the kernel kill the child when the thread that starts it ends. That is the main thread, so when we end.
fn tie_to_us(command: &mut Command) {
    let us = rustix::process::getpid();
    let tie = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died before the line above; then somebody else is the parent.
        if rustix::process::getppid() != Some(us) {
            return Err(std::io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec. It makes two system calls, allocates nothing and takes no lock:
    // the errors are made of numbers.
    unsafe {
        command.pre_exec(tie);
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

/// The orchestrator, as it said itself that it can be reached.
pub(super) struct Orchestrator {
    pub(super) child: Child,
    /// As `https://127.0.0.1:40123`.
    pub(super) url: String,
    /// SHA-256 of its certificate.
    pub(super) fingerprint: String,
    /// The first operator's token.
    pub(super) token: TokenText,
}

impl Orchestrator {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Where it ends before, or says nothing in time.
    pub(super) async fn start(program: &Path, folders: &Folders, tie: Tie) -> Result<Orchestrator> {
        let token_file = folders.token_file();
        let mut command = Command::new(program);
        command
            // Nothing grows here for long, and a machine whose disk is nearly full is vetted like any other.
            .args(["serve", "--listen", "127.0.0.1:0", "--keep-free-percent", "0", "--data"])
            .arg(folders.data().join("orchestrator"))
            .arg("--print-token-to")
            .arg(&token_file)
            .stdout(Stdio::piped())
            .stderr(folders.log(ORCHESTRATOR_LOG)?);
        let mut child = Child::start("the orchestrator", command, tie)?;
        let stdout = child.child.stdout.take().context("the orchestrator has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let said = timeout(START_WAIT, listen(&mut lines)).await;
        let said = said.map_err(|_| anyhow::anyhow!("the orchestrator did not listen within {START_WAIT:?}"));
        let said = match said.and_then(|said| said) {
            Ok(Some(said)) => said,
            Ok(None) => bail!("the orchestrator ended before it listened: {}", child.ended().await),
            Err(error) => {
                child.end(std::future::pending::<()>()).await;
                return Err(error);
            }
        };
        // What it prints later is nobody's; the pipe must not fill up for all that.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let text = std::fs::read_to_string(&token_file)
            .with_context(|| format!("reading the operator's token in {}", token_file.display()))?;
        let token = text
            .trim()
            .parse()
            .map_err(|_| anyhow::anyhow!("{} holds no operator's token", token_file.display()))?;
        Ok(Orchestrator { child, url: said.url, fingerprint: said.fingerprint, token })
    }
}

/// What an orchestrator says once it listens.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    url: String,
    fingerprint: String,
}

/// Reads what it prints until it listens; `None` where it ends before.
async fn listen(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Option<Said>> {
    let mut said = Said::default();
    while let Some(line) = lines.next_line().await.context("reading what the orchestrator prints")? {
        if said.take(&line) {
            return Ok(Some(said));
        }
    }
    Ok(None)
}

impl Said {
    /// Takes a line in; true where it is the last.
    fn take(&mut self, line: &str) -> bool {
        if let Some(fingerprint) = line.strip_prefix("certificate SHA-256 ") {
            fingerprint.trim().clone_into(&mut self.fingerprint);
        }
        if let Some(url) = line.strip_prefix("listening on ") {
            url.trim().clone_into(&mut self.url);
        }
        !self.url.is_empty() && !self.fingerprint.is_empty()
    }
}

/// The agent.
pub(super) struct Agent {
    pub(super) child: Child,
}

impl Agent {
    /// Starts it with a home of its own; what an environment says of other runs is not handed on, nor any leave to
    /// switch off or restart this machine.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(super) fn start(
        program: &Path,
        folders: &Folders,
        environment: &[(&str, &str)],
        tie: Tie,
    ) -> Result<Agent> {
        let log = folders.log(AGENT_LOG)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GROUNDCREW_") {
                command.env_remove(name);
            }
        }
        command
            .arg("agent")
            .envs(environment.iter().copied())
            .env("GROUNDCREW_HOME", folders.data().join("agent"))
            .env("GROUNDCREW_AUTHORIZED_KEYS", folders.data().join("authorized_keys"))
            .stdout(log.try_clone().context("sharing the agent's log")?)
            .stderr(log);
        Ok(Agent { child: Child::start("the agent", command, tie)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown again in a namespace of its own.
    const INSIDE: [&str; 2] =
        ["a_program_that_does_not_want_to_end_is_killed", "what_a_killed_program_leaves_behind_ends_with_it"];

    #[test]
    fn an_orchestrator_is_there_once_it_said_where_and_who() {
        let mut said = Said::default();
        assert!(!said.take("certificate SHA-256 abcd"));
        assert!(!said.take("something else"));
        assert!(said.take("listening on https://127.0.0.1:40123"));
        assert_eq!(said, Said { url: "https://127.0.0.1:40123".into(), fingerprint: "abcd".into() });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_does_not_want_to_end_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo up; while :; do sleep 1; done"]).stdout(Stdio::piped());
        let mut child = Child::start("sh", command, Tie::ToUs).unwrap();
        let id = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let stdout = child.child.stdout.take().unwrap();
        let line = BufReader::new(stdout).lines().next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("up"));
        child.end(std::future::ready(())).await;
        assert!(rustix::process::test_kill_process(id).is_err(), "it was waited for");
    }

    /// As an agent does that is killed while a tool of its has children, which are no children of ours.
    #[tokio::test(flavor = "current_thread")]
    async fn what_a_killed_program_leaves_behind_ends_with_it() {
        orphans::adopt().unwrap();
        let left = "trap '' TERM; sh -c 'sleep 1000 & echo $!; wait' & wait";
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; setsid sh -c \"$0\" & wait; wait", left]).stdout(Stdio::piped());
        let mut child = Child::start("sh", command, Tie::ToUs).unwrap();
        let stdout = child.child.stdout.take().unwrap();
        let line = BufReader::new(stdout).lines().next_line().await.unwrap().unwrap();
        let sleeper = Pid::from_raw(line.parse().unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(sleeper).is_ok());
        child.end(std::future::ready(())).await;
        assert!(rustix::process::test_kill_process(sleeper).is_err(), "{line} lives on");
    }

    /// In a container our session and group are often begun outside of it, and have no number inside.
    #[test]
    fn all_this_holds_where_our_session_is_out_of_sight() {
        let us = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]);
        command.arg(us).args(["--exact", "--nocapture"]);
        command.args(INSIDE.map(|name| format!("{}::{name}", module_path!().split_once("::").unwrap().1)));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = format!("test result: ok. {} passed;", INSIDE.len());
        assert!(output.status.success() && said.contains(&passed), "{output:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_status_is_said_in_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        assert_eq!(Child::start("sh", command, Tie::ToUs).unwrap().ended().await, "exit code 3");
    }
}
