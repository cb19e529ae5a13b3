//! What a command can fail with, as far as its exit code tells it apart.

use std::process::ExitCode;

/// What a wrong command line or context ends with (sysexits' EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// The command was not understood, or does not say enough: a change of the command line mends it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// A signal ended it, and everything was put away.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {name}")]
pub(crate) struct Interrupted {
    /// As `SIGINT`.
    pub(crate) name: &'static str,
    /// Its number.
    pub(crate) number: u8,
}

/// A run did not end well; what there is to say of it was printed.
#[derive(Debug, thiserror::Error)]
#[error("the run is not Completed")]
pub(crate) struct NotCompleted;

/// The exit code of a failure: 64 for a wrong command line, 128 and the signal's number, otherwise 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(EXIT_USAGE);
    }
    match error.downcast_ref::<Interrupted>() {
        Some(interrupted) => ExitCode::from(128 + interrupted.number),
        None => ExitCode::FAILURE,
    }
}

/// False where the reason was printed already, or nobody reads any more.
pub(crate) fn is_said_aloud(error: &anyhow::Error) -> bool {
    let nobody_reads = error.downcast_ref::<Interrupted>().is_some_and(|signal| signal.name == "SIGPIPE");
    !error.is::<NotCompleted>() && !nobody_reads
}

/// The exit code of what clap says: help and version are no failures.
pub(crate) fn clap_code(error: &clap::Error) -> ExitCode {
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}
