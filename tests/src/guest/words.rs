//! What a test and the hand in its guest say to each other: a line of JSON each, over a virtio serial port.

use serde::{Deserialize, Serialize};

/// The port's name on both sides.
pub const PORT: &str = "groundcrew.hand";

/// Where a kernel says which boot this is.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A command to run. Bytes are in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// The boot that it is meant for. A line can lie in the port's buffers until the next boot reads it: a reboot that
    /// was asked for would be asked for twice.
    pub boot: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables besides PATH and HOME.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: String,
    /// When it is killed, in seconds.
    pub deadline_s: u64,
}

/// What the hand says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// First of all, once a boot.
    Hello {
        /// The boot's id.
        boot: String,
    },
    /// A command is over.
    Answer(Answer),
}

/// What became of a command. Bytes are in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed at its deadline.
    Deadline,
    /// There is no such program, or it cannot be run.
    NotStarted(String),
    /// It was meant for another boot, and was not run.
    OtherBoot,
}
