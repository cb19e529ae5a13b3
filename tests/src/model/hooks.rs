//! A node with hooks in the model: what they did, whatever the agent knows of it.

use groundcrew_agent::control::hooks::Which;
use groundcrew_protocol::profile::{HookCommand, Hooks};

/// How long a hook may take. The world decides how long it does.
const DEADLINE_MS: u64 = 600_000;

/// A node, and its workloads.
#[derive(Debug)]
pub struct Node {
    has_hooks: bool,
    /// The hook that runs, and its number.
    pub runs: Option<(Which, u64)>,
    /// Hooks that were begun.
    pub begun: u64,
    /// The `before` has succeeded in this boot, and no `after` was begun since.
    pub is_drained: bool,
    /// A `before` was begun, and no `after` has succeeded since.
    pub is_to_undo: bool,
}

impl Node {
    /// A node with hooks, or without any.
    pub(super) fn with(has_hooks: bool) -> Node {
        Node { has_hooks, runs: None, begun: 0, is_drained: false, is_to_undo: false }
    }

    /// Its hooks.
    pub(super) fn hooks(&self) -> Hooks {
        let command =
            || self.has_hooks.then(|| HookCommand { argv: vec!["x".to_owned()], deadline_ms: DEADLINE_MS });
        Hooks { before_drain: command(), after_drain: command(), on_completed: command(), on_hold: command() }
    }

    /// The agent's process ends, and its hook with it.
    pub(super) fn end(&mut self) {
        self.runs = None;
    }

    /// The machine boots: what was stopped before may run again.
    pub(super) fn boot(&mut self) {
        self.is_drained = false;
    }

    /// What is known of hooks is lost with its home.
    pub(super) fn forget(&mut self) {
        self.is_to_undo = false;
    }

    /// True where it counts as drained once nothing else is active.
    pub fn may_be_drained(&self) -> bool {
        !self.has_hooks || (self.is_drained && self.runs.is_none())
    }

    /// A hook is begun. What is wrong with that.
    pub fn begin(&mut self, which: Which, owes: bool) -> Option<&'static str> {
        let beside = self.runs.is_some().then_some("beside another one");
        self.begun += 1;
        self.runs = Some((which, self.begun));
        let unkept = match which {
            Which::BeforeDrain => {
                self.is_to_undo = true;
                (!owes).then_some("and nothing that is owed is on the disk")
            }
            Which::AfterDrain => {
                self.is_drained = false;
                None
            }
            Which::OnCompleted | Which::OnHold => None,
        };
        beside.or(unkept)
    }

    /// The hook of that number has ended. False where another one runs, or none.
    pub fn ended(&mut self, number: u64, succeeds: bool) -> bool {
        let Some((which, _)) = self.runs.take_if(|(_, runs)| *runs == number) else { return false };
        match which {
            Which::BeforeDrain if succeeds => self.is_drained = true,
            Which::AfterDrain if succeeds => self.is_to_undo = false,
            Which::BeforeDrain | Which::AfterDrain | Which::OnCompleted | Which::OnHold => {}
        }
        true
    }
}
