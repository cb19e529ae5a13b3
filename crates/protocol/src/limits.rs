//! Every limit that both sides of the wire must agree on, each with its reason.

/// Time between two heartbeats of an agent, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 10_000;
/// An agent that was not heard for this many intervals shows as offline; its claim is no longer fresh.
pub const HEARTBEATS_MISSED_MAX: u64 = 3;
/// Time between two readings of the thermal sidecar, in milliseconds.
pub const SENSOR_INTERVAL_MS: u64 = 5_000;
/// A chunk of log is closed after this many milliseconds, so that a watcher sees lines while they matter.
pub const LOG_CHUNK_AGE_MS: u64 = 2_000;
/// A chunk of log is closed at this many bytes of text.
pub const LOG_CHUNK_BYTES: usize = 64 * 1024;
/// A longer line is cut at a character's edge and says how much was cut.
pub const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// Greatest number of lines in one log message: 64 KiB of empty lines.
pub const LOG_LINES_MAX: usize = 16 * 1024;
/// Greatest body of a log message: a chunk of control characters, each six bytes in JSON, and room for the lines' frames.
pub const LOG_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Greatest number of samples in one sensor message: the hwmon channels of a large machine, several times over.
pub const SENSOR_SAMPLES_MAX: usize = 2_048;
/// Greatest body of any other message of an agent.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Greatest size of an artifact: raw tool output.
pub const ARTIFACT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Greatest number of artifacts of one attempt.
pub const ARTIFACTS_MAX: usize = 64;
/// Greatest number of checks in one result: thousands of components, each with several.
pub const CHECKS_MAX: usize = 4_096;
/// Longest text in a check (measured, reason, evidence), in bytes; longer ones are refused.
pub const CHECK_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Greatest archive of a package that the orchestrator stores: drivers and runtimes for GPUs, packed.
pub const PACKAGE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Greatest number of stages in a profile.
pub const STAGES_MAX: usize = 64;
/// Greatest size of a profile's text.
pub const PROFILE_BYTES_MAX: usize = 256 * 1024;
/// Greatest number of outcomes that a claim may list, and that an agent keeps.
pub const OUTBOX_MAX: usize = 256;
/// Ids of directives that an agent remembers as done.
pub const DIRECTIVES_REMEMBERED: usize = 64;
/// A call of the control channel (hello, claim, intent, result, hold) ends after this, in milliseconds.
pub const CALL_TIMEOUT_MS: u64 = 10_000;
/// A heartbeat, sensor or log call ends after this, in milliseconds.
pub const SHORT_CALL_TIMEOUT_MS: u64 = 5_000;
/// First pause after a failed call, in milliseconds.
pub const BACKOFF_FIRST_MS: u64 = 2_000;
/// Longest pause between two tries of a failed call, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 30_000;
/// What only an operator can mend (401, 403, 404, 410, a wrong pin, a claim taken over) is asked again this often.
pub const SLOW_RETRY_MS: u64 = 300_000;
/// Keys that a hold has, all lines together: what an agent remembers of its run is read whole, and has other things in it.
/// Some two hundred ed25519 keys, or thirty of RSA with 4,096 bits.
pub const HOLD_KEYS_BYTES_MAX: usize = 24 * 1024;
/// Changes of a claim's hands within [`CLAIM_CHANGES_WINDOW_MS`] that hold the run.
pub const CLAIM_CHANGES_MAX: usize = 3;
/// The time in which changes of hands are counted.
pub const CLAIM_CHANGES_WINDOW_MS: u64 = 600_000;
/// The spool of an agent holds this much; past it the oldest middle goes.
pub const SPOOL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Skew between the orchestrator's clock and an agent's that is shown, in milliseconds.
pub const SKEW_SHOWN_MS: i64 = 5_000;
/// A run token ends this long after its run.
pub const RUN_TOKEN_AFTER_END_MS: u64 = 86_400_000;
/// A reboot that was asked for must be seen within this, unless the profile says otherwise.
pub const REBOOT_DEADLINE_MS: u64 = 1_800_000;
/// Deadline of a stage whose profile names none.
pub const STAGE_DEADLINE_MS: u64 = 120_000;
/// Deadline of the stage PSU whose profile names none: five questions to a BMC, each of which may take a minute and a half.
pub const PSU_DEADLINE_MS: u64 = 600_000;
/// Deadline of the stages SMART and GPU whose profile names none: what they ask for by default, a short self-test and level 2 of
/// `dcgmi diag`, takes some minutes of a healthy disk or GPU.
pub const SELF_TEST_DEADLINE_MS: u64 = 900_000;
/// Deadline of an interrupt whose profile names none: a minute for what is to be acknowledged before a reboot, five for
/// services that are slow to start, and one to spare. A reboot that was asked for has the run's limit.
pub const INTERRUPT_DEADLINE_MS: u64 = 420_000;
/// How often a machine may come back under the boot under which a reboot was asked for, before the run is held.
pub const REBOOTS_MISSED_MAX: u32 = 3;
/// How often an agent may be stopped in order in a stage that may itself be what stops it (a package's step, a restart of
/// services), before the run is held: an operator stops one once or twice, a stage that does would do it for ever.
pub const STOPS_MAX: u32 = 3;
/// The first protocol whose results carry checks, claims and attempts.
pub const PROTOCOL_WITH_CHECKS: u32 = 2;
/// Silence after which a claim is no longer fresh: three heartbeats, in milliseconds.
pub const FRESH_MS: u64 = HEARTBEAT_INTERVAL_MS * HEARTBEATS_MISSED_MAX;
