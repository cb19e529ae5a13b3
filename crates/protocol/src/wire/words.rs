//! The words that have a fixed list: what a newer side adds to one is kept, and named.

use crate::text_enum::text_enum;

text_enum! {
    /// Whether an agent's home outlives the machine's power.
    HomeKind {
        /// On a disk.
        Durable = "durable",
        /// In memory, or on a disk under test: the orchestrator is the only memory.
        Volatile = "volatile",
    }
}

text_enum! {
    /// What an orchestrator tells an agent in a heartbeat's answer.
    Command {
        /// Stop everything and end.
        Abort = "abort",
        /// Power the machine off.
        Shutdown = "shutdown",
        /// End the stage in flight.
        CancelStage = "cancel_stage",
        /// Do a stage again, out of a hold.
        RetryStage = "retry_stage",
        /// Go on with a stage after an override.
        Continue = "continue",
        /// The hold is over: take its key off, do what the profile says for the end.
        Release = "release",
        /// Quiesce.
        Drain = "drain",
        /// Take the orchestrator's drain off.
        Undrain = "undrain",
    }
}

text_enum! {
    /// What became of a directive.
    DirectiveOutcome {
        /// Being done.
        Doing = "doing",
        /// Done.
        Done = "done",
        /// Not done, for the reason given.
        Refused = "refused",
        /// It names a claim, stage or attempt that is past.
        TooLate = "too_late",
    }
}

text_enum! {
    /// How a result was taken.
    Taken {
        /// The first of its attempt: it stands.
        First = "first",
        /// The attempt had one already: it is evidence.
        Repeated = "repeated",
        /// Its attempt was replaced, or its run has ended: it is evidence.
        Late = "late",
    }
}

text_enum! {
    /// What cannot be taken back.
    IntentKind {
        /// Restart the machine.
        Reboot = "reboot",
        /// Switch the machine off.
        PowerOff = "poweroff",
        /// Write over disks.
        Wipe = "wipe",
    }
}

text_enum! {
    /// How much a log line matters.
    LogLevel {
        /// For the reader who wants everything.
        Debug = "debug",
        /// Normal.
        Info = "info",
        /// Something to look at.
        Warn = "warn",
        /// Something failed.
        Error = "error",
    }
}

text_enum! {
    /// What an agent does as a whole.
    Phase {
        /// Not ready yet.
        Starting = "starting",
        /// Walking a run.
        Running = "running",
        /// Held.
        Holding = "holding",
        /// Quiesced by a drain.
        Draining = "draining",
        /// On its way out.
        Stopping = "stopping",
        /// Its run has ended.
        Ended = "ended",
        /// Displaced by a later claim, or parked in a state that it does not know.
        Idle = "idle",
    }
}
