//! What seeds led to, counted.

/// What a seed led to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Crashes of agents.
    pub crashes: u32,
    /// Resets of machines.
    pub resets: u32,
    /// Deaths of the orchestrator.
    pub server_deaths: u32,
    /// Restores.
    pub restores: u32,
    /// Messages that were lost.
    pub lost: u32,
    /// Stages started.
    pub stages: u32,
    /// Steps of the world.
    pub steps: u64,
    /// 1 where the run ended Completed.
    pub completed: u32,
    /// Lines of log that were written.
    pub lines: u64,
    /// Lines that a spool had to let go, and told.
    pub lines_in_gaps: u64,
    /// Acknowledged lines that a restore forgot.
    pub lines_forgotten: u64,
    /// Streams that end without their closing mark.
    pub streams_open: u64,
    /// Chunks that were other than what was stored under their number.
    pub chunks_other: u64,
    /// Reboots that a stage asked for.
    pub reboots: u32,
    /// Reboots that proved an interrupt.
    pub proved: u32,
    /// Reboots that had not come when the agent was back, and were asked for again.
    pub missed: u32,
    /// Resets that the orchestrator saw and that nobody had asked for.
    pub resets_seen: u32,
    /// Machines that were switched off at the end of the run.
    pub power_offs: u32,
    /// Drains that were asked for, on a node or of it.
    pub drains: u32,
    /// How often somebody was told in a drain that nothing is active.
    pub told_idle: u32,
    /// How often an attempt waited for the end of a drain.
    pub waited: u32,
    /// Hooks that came to an end.
    pub hooks: u32,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.crashes += other.crashes;
        self.resets += other.resets;
        self.server_deaths += other.server_deaths;
        self.restores += other.restores;
        self.lost += other.lost;
        self.stages += other.stages;
        self.steps += other.steps;
        self.completed += other.completed;
        self.lines += other.lines;
        self.lines_in_gaps += other.lines_in_gaps;
        self.lines_forgotten += other.lines_forgotten;
        self.streams_open += other.streams_open;
        self.chunks_other += other.chunks_other;
        self.reboots += other.reboots;
        self.proved += other.proved;
        self.missed += other.missed;
        self.resets_seen += other.resets_seen;
        self.power_offs += other.power_offs;
        self.drains += other.drains;
        self.told_idle += other.told_idle;
        self.waited += other.waited;
        self.hooks += other.hooks;
    }
}
