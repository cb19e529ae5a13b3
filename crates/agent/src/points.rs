//! The fault points of the agent: where a test may kill it to see what it leaves behind.

groundcrew_durable::fault_points! {
    /// Part of another run's things has been moved aside.
    HOME_PART_MOVED = "home.part_moved";
    /// Another run's things are aside; this run is not written yet.
    HOME_MOVED = "home.moved";
    /// An outcome stands at its new place; the folders are not on the disk yet.
    MOVE_RENAMED = "move.renamed";
    /// A line is in the spool; the call that put it there has not returned.
    SPOOL_APPENDED = "spool.appended";
    /// A new segment exists and is empty.
    SPOOL_SEGMENT_MADE = "spool.segment_made";
    /// A gap is written; the segments that it stands for are still there.
    SPOOL_GAP_WRITTEN = "spool.gap_written";
    /// What the orchestrator has acknowledged is written; the segments are still there.
    SPOOL_ACKNOWLEDGED = "spool.acknowledged";
    /// The last word of a stream is acknowledged; its folder is still there.
    SPOOL_CLOSED = "spool.closed";
    /// The flag of an interrupt's command is durable; the command has not been started.
    INTERRUPT_FLAGGED = "interrupt.flagged";
    /// The control loop is about to be told of a marker that drains.
    DRAIN_MET = "drain.met";
    /// The control loop is about to be told that no marker drains any more.
    DRAIN_OVER = "drain.over";
    /// A drain that was ordered is in the marker; the order is not settled.
    DRAIN_BEGUN = "drain.begun_as_ordered";
    /// A drain that was ordered to end is out of the marker; the order is not settled.
    DRAIN_ENDED = "drain.ended_as_ordered";
    /// What is owed for hooks is on the disk; nothing that follows is done.
    HOOK_KEPT = "hook.kept";
    /// A hook's thread is there; its end is not awaited yet.
    HOOK_BEGUN = "hook.begun";
    /// A hook has ended; the control loop has not been told.
    HOOK_ENDED = "hook.ended";
}
