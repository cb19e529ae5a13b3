//! The local runtime: what this host knows of the processes of agents that run on it.
//!
//! An agent names itself by boot, number and start of its process. Inside a container those are numbers that mean other
//! processes here, or none; so that a process is missing is told only of one that was held before, or of an agent that
//! lives under the very boot epoch of this server, where numbers mean the same.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use groundcrew_durable::epoch::{PROC, boot_epoch, boot_id, process_start};
use groundcrew_protocol::agent_info::{
    AgentInfo, AgentLife, Ending, Exit, InfoPhase, RuntimeFact, RuntimeSource, RuntimeState,
};
use groundcrew_protocol::time::WallMs;

use super::process::{ProcessId, Sight, Watched};

/// Processes that are held at a time, three descriptors each: more agents than anybody runs on one host. Those beyond are
/// looked for by their number at each pass.
const WATCHED_MAX: usize = 128;

/// What was seen of an agent's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It runs.
    Runs,
    /// It has ended.
    Ended {
        /// With what, where that can be told.
        exit: Option<Exit>,
        /// For want of memory, as far as its cgroup tells.
        out_of_memory: bool,
    },
    /// Nobody here can tell.
    Unknown,
}

/// The processes that are watched.
#[derive(Debug)]
pub(super) struct Local {
    boot_id: String,
    /// The boot epoch of this server.
    pub epoch: String,
    watched: HashMap<ProcessId, (Watched, bool)>,
    begun: Vec<OwnedFd>,
}

impl Local {
    /// Of this host.
    pub fn of_host() -> Local {
        let proc_root = Path::new(PROC);
        Local {
            // Without it no agent can be of this boot, and nothing is told of any.
            boot_id: boot_id(proc_root).unwrap_or_default(),
            epoch: boot_epoch(proc_root),
            watched: HashMap::new(),
            begun: Vec::new(),
        }
    }

    /// Looks at the process that an agent calls itself. `epoch` is the boot that it says it lives under.
    pub fn look(&mut self, runtime_id: &str, epoch: Option<&str>) -> Seen {
        let Some(id) = ProcessId::of(runtime_id, &self.boot_id).filter(|_| !self.boot_id.is_empty()) else {
            return Seen::Unknown;
        };
        if let Some((watched, is_asked_for)) = self.watched.get_mut(&id) {
            *is_asked_for = true;
            return seen(watched.look());
        }
        let held = if self.watched.len() < WATCHED_MAX { Watched::hold(id) } else { None };
        if let Some(mut watched) = held {
            let sight = watched.look();
            self.begun.extend(watched.end());
            self.watched.insert(id, (watched, true));
            return seen(sight);
        }
        let runs = process_start(Path::new(PROC), id.pid).ok().flatten() == Some(id.start);
        let same_numbers = epoch == Some(self.epoch.as_str());
        match (runs, same_numbers) {
            (true, _) => Seen::Runs,
            (false, true) => Seen::Ended { exit: None, out_of_memory: false },
            (false, false) => Seen::Unknown,
        }
    }

    /// Ends a pass: lets go of what nobody asked for in it, and gives what becomes readable at the end of each process that
    /// is held since.
    pub fn end_pass(&mut self) -> Vec<OwnedFd> {
        self.watched.retain(|_, (_, is_asked_for)| std::mem::take(is_asked_for));
        std::mem::take(&mut self.begun)
    }
}

fn seen(sight: Sight) -> Seen {
    match sight {
        Sight::Runs => Seen::Runs,
        Sight::Ended { exit, out_of_memory } => Seen::Ended { exit, out_of_memory },
    }
}

/// What is known of an agent, from what was seen of its process and what it last said itself: its own word of its end
/// counts, since it knows whether that was in order; else what the process left.
pub(super) fn fact_of(life: AgentLife, said: &AgentInfo, seen: Seen, now: WallMs) -> RuntimeFact {
    let (state, container_status) = match seen {
        Seen::Runs => (RuntimeState::Running, "Running".to_owned()),
        Seen::Unknown => (RuntimeState::Deferring, String::new()),
        Seen::Ended { exit, out_of_memory } => (ended(said, exit, out_of_memory), exited(exit)),
    };
    RuntimeFact { source: RuntimeSource::Local, life, state, container_status, at: now }
}

fn ended(said: &AgentInfo, exit: Option<Exit>, out_of_memory: bool) -> RuntimeState {
    let own_word = match &said.phase {
        Some(InfoPhase::Stopped) => Some(Ending::Stopped),
        Some(InfoPhase::Error) => Some(Ending::Error),
        Some(
            InfoPhase::Created
            | InfoPhase::Provisioning
            | InfoPhase::Cloning
            | InfoPhase::Starting
            | InfoPhase::Running
            | InfoPhase::Stopping
            | InfoPhase::Ended
            | InfoPhase::Unknown(_),
        )
        | None => None,
    };
    // One that was not ready yet has not ended in order, whatever its process left.
    let was_ready =
        !matches!(said.phase, Some(InfoPhase::Provisioning | InfoPhase::Cloning | InfoPhase::Starting));
    let of_exit = match exit {
        Some(Exit::Code(0)) if was_ready => Some(Ending::Stopped),
        Some(Exit::Code(_) | Exit::Signal(_)) | None => None,
    };
    if let Some(ending) = own_word.or(of_exit) {
        return RuntimeState::Ended { ending, exit, reason: String::new(), detail: String::new() };
    }
    let process = said.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
    // A limit of its cgroup ends it by this signal and no other.
    let (reason, detail) = match exit {
        Some(Exit::Signal(9)) | None if out_of_memory => {
            ("OOMKilled", format!("OOMKilled: the kernel ended its process{process} for want of memory"))
        }
        Some(exit) => ("", format!("its process{process} ended with {exit} and did not say so")),
        None => ("", format!("its process{process} is gone and did not say so")),
    };
    RuntimeState::Ended { ending: Ending::Error, exit, reason: reason.to_owned(), detail }
}

fn exited(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Code(code)) => format!("Exited ({code})"),
        Some(Exit::Signal(signal)) => format!("Exited (signal {signal})"),
        None => "Exited".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn name_of(local: &Local, pid: u32) -> String {
        let start = process_start(Path::new(PROC), pid).unwrap().unwrap();
        format!("{}:{pid}:{start}", local.boot_id)
    }

    #[test]
    fn a_process_that_was_held_ends_and_one_that_never_was_is_unknown_elsewhere() {
        let mut local = Local::of_host();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let name = name_of(&local, child.id());
        assert_eq!(local.look(&name, None), Seen::Runs);
        assert_eq!(local.end_pass().len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(local.look(&name, None), Seen::Ended { .. }));
        assert!(matches!(local.look(&name, None), Seen::Ended { .. }), "as long as somebody asks");
        assert!(local.end_pass().is_empty());
        local.end_pass();
        // Nobody asked for it in the pass before: it is held no more.
        assert_eq!(local.look(&name, None), Seen::Unknown);
        assert_eq!(local.look(&name, Some("another boot:1")), Seen::Unknown);
        let epoch = local.epoch.clone();
        let gone = Seen::Ended { exit: None, out_of_memory: false };
        assert_eq!(local.look(&name, Some(&epoch)), gone);
        assert_eq!(local.look(&format!("another-boot:{}:1", child.id()), Some(&epoch)), Seen::Unknown);
    }

    #[test]
    fn how_an_agent_ended_is_its_own_word_then_that_of_its_process() {
        let (zero, one, killed) = (Some(Exit::Code(0)), Some(Exit::Code(1)), Some(Exit::Signal(9)));
        let silent = " and did not say so";
        for (phase, exit, out_of_memory, ending, reason, detail) in [
            ("stopped", None, false, "stopped", "", String::new()),
            ("stopped", killed, true, "stopped", "", String::new()),
            ("error", zero, false, "error", "", String::new()),
            ("running", zero, false, "stopped", "", String::new()),
            (
                "starting",
                zero,
                false,
                "error",
                "",
                format!("its process 12 ended with exit status 0{silent}"),
            ),
            ("running", one, true, "error", "", format!("its process 12 ended with exit status 1{silent}")),
            ("stopping", killed, false, "error", "", format!("its process 12 ended with signal 9{silent}")),
            (
                "running",
                killed,
                true,
                "error",
                "OOMKilled",
                "OOMKilled: the kernel ended its process 12 for want of memory".to_owned(),
            ),
            ("running", None, false, "error", "", format!("its process 12 is gone{silent}")),
        ] {
            let said =
                AgentInfo { phase: Some(phase.to_owned().into()), pid: Some(12), ..AgentInfo::default() };
            let fact = fact_of(AgentLife::default(), &said, Seen::Ended { exit, out_of_memory }, WallMs(1));
            let expected = RuntimeState::Ended {
                ending: if ending == "stopped" { Ending::Stopped } else { Ending::Error },
                exit,
                reason: reason.to_owned(),
                detail,
            };
            assert_eq!(fact.state, expected, "{phase} {exit:?}");
        }
        let runs = fact_of(AgentLife::default(), &AgentInfo::default(), Seen::Runs, WallMs(1));
        assert_eq!((runs.state, runs.container_status.as_str()), (RuntimeState::Running, "Running"));
        let unknown = fact_of(AgentLife::default(), &AgentInfo::default(), Seen::Unknown, WallMs(1));
        assert_eq!(unknown.state, RuntimeState::Deferring);
    }
}
