//! The fault points of the orchestrator: where a test may kill it to see what it leaves behind.

groundcrew_durable::fault_points! {
    /// What runtimes know of agents is in their files; nothing of it is stored.
    AGENTS_LOOKED = "agents.looked";
    /// A run knows how its agent ended; those behind it may not, and nothing of it is stored.
    AGENTS_TOLD = "agents.told";
    /// What runtimes know of agents is stored, and runs were told.
    AGENTS_STORED = "agents.stored";
}
