//! What a command can fail with, as far as its exit code tells it apart.

use std::process::ExitCode;

use serde_json::json;

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

/// Whoever read what is printed has seen enough, as `head` has.
pub(crate) const CLOSED_PIPE: Interrupted = Interrupted { name: "SIGPIPE", number: 13 };

/// True where whoever read has seen enough.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Interrupted>().is_some_and(|signal| signal.number == CLOSED_PIPE.number)
}

/// The orchestrator refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    /// What it said, for people.
    pub(crate) text: String,
    /// Its word for programs.
    pub(crate) code: String,
    /// The HTTP status.
    pub(crate) status: u16,
}

/// A run did not end well; what there is to say of it was printed.
#[derive(Debug, thiserror::Error)]
#[error("the run is not Completed")]
pub(crate) struct NotCompleted;

/// A program that was run in this one's place ended so; it has said why itself.
#[derive(Debug, thiserror::Error)]
#[error("it ended with status {0}")]
pub(crate) struct Ended(pub(crate) u8);

/// The exit code of a failure: 64 for a wrong command line, 128 and the signal's number, otherwise 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(EXIT_USAGE);
    }
    if let Some(Ended(code)) = error.downcast_ref::<Ended>() {
        return ExitCode::from(*code);
    }
    match error.downcast_ref::<Interrupted>() {
        Some(interrupted) => ExitCode::from(128 + interrupted.number),
        None => ExitCode::FAILURE,
    }
}

/// False where the reason was printed already, or nobody reads any more.
pub(crate) fn is_said_aloud(error: &anyhow::Error) -> bool {
    !error.is::<NotCompleted>() && !error.is::<Ended>() && !is_closed_pipe(error)
}

/// A failure as it is printed: a sentence, or with `json` one object in a line.
pub(crate) fn said(error: &anyhow::Error, json: bool) -> String {
    let text = format!("{error:#}");
    if !json {
        return format!("groundcrewctl: {text}");
    }
    match error.downcast_ref::<Refusal>() {
        Some(refusal) => json!({"error": text, "code": refusal.code, "status": refusal.status}).to_string(),
        None if error.is::<Usage>() => json!({"error": text, "code": "usage"}).to_string(),
        None => json!({"error": text, "code": "failed"}).to_string(),
    }
}

/// What the parser says of a command line, as one object in a line: `None` where it is no mistake or was not asked for so.
pub(crate) fn clap_json(
    error: &clap::Error,
    words: impl IntoIterator<Item = std::ffi::OsString>,
) -> Option<String> {
    let asks = words.into_iter().take_while(|word| word != "--").any(|word| word == "--json");
    let text = || error.render().to_string().trim_end().to_owned();
    (asks && error.use_stderr()).then(|| json!({"error": text(), "code": "usage"}).to_string())
}

/// The exit code of what clap says: help and version are no failures.
pub(crate) fn clap_code(error: &clap::Error) -> ExitCode {
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}
