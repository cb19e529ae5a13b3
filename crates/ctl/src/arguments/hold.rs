//! Arguments about the keys of holds.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use groundcrew_protocol::ids::{HoldKeyName, RunId};

/// The SSH keys that operators have registered for held machines.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldKeyCommand {
    /// List them. Without any, each hold has a key of its own: `run ssh` logs in with it.
    List,
    /// Show the one that is called `default`.
    Show,
    /// Register one, in the place of another of its name; held machines have it within five minutes.
    Set {
        /// The public key: a file (as id_ed25519.pub), or the line itself.
        #[arg(value_name = "FILE|KEY")]
        key: String,
        /// Whose it is, or what for.
        #[arg(long, default_value = "default")]
        name: HoldKeyName,
    },
    /// Take one away, also from machines that are held.
    Clear {
        /// Its name.
        #[arg(long, default_value = "default")]
        name: HoldKeyName,
    },
}

/// What `run hold-key` is told.
#[derive(Debug, Args)]
pub(crate) struct RunKeyArguments {
    /// The run.
    pub(crate) run: RunId,
    /// Write it to this file, which nobody else may read. There must be none yet.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) output: Option<PathBuf>,
}

/// What `run ssh` is told.
#[derive(Debug, Args)]
pub(crate) struct SshArguments {
    /// The run.
    pub(crate) run: RunId,
    /// The user to log in as, in the place of the one whom the agent names.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// The machine's address, in the place of the one that the agent names.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The port of its SSH server.
    #[arg(long, default_value_t = 22)]
    pub(crate) port: u16,
    /// A command to run there, in the place of a shell.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
