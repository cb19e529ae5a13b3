//! What `groundcrewd` is told on its command line, and where its data lies when it is told nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The port that the orchestrator listens on where none is given.
pub const PORT: u16 = 8443;

/// Watches over the agents of a fleet: holds runs, judges results, keeps logs.
#[derive(Debug, Parser)]
#[command(name = "groundcrewd", version, after_help = "Exit codes: 0 done, 1 failed or refused, 64 usage.")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve agents and operators until SIGTERM or SIGINT.
    Serve(Serve),
    /// Print the SHA-256 of the certificate that is served, which agents pin.
    Fingerprint(Data),
    /// Change the certificate without losing an agent.
    Certificate {
        /// What to do with it.
        #[command(subcommand)]
        command: CertificateCommand,
    },
    /// Write a copy of the data folder, with or without a server at work on it.
    Backup {
        /// Where the data lies.
        #[command(flatten)]
        data: Data,
        /// The folder to make; it must not exist.
        to: PathBuf,
    },
    /// Put a backup in place of the data folder's content. Its overrides are disarmed.
    Restore {
        /// Where the data lies. A folder that holds something is refused.
        #[command(flatten)]
        data: Data,
        /// The folder that `backup` made.
        from: PathBuf,
        /// Move what the data folder holds aside, into a folder inside it.
        #[arg(long)]
        force: bool,
    },
    /// Keep operators' tokens.
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print the OpenAPI document.
    Openapi,
}

/// What to do with the certificate.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Make the next certificate and announce it; it is served once every agent of the last 7 days knows it.
    Rotate(Data),
}

/// What to do with operators' tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one and print it, this once.
    Add {
        /// Where the data lies.
        #[command(flatten)]
        data: Data,
        /// Whose it is; it appears in events as who acted.
        name: String,
    },
    /// List their names.
    List(Data),
    /// Take one back.
    Revoke {
        /// Where the data lies.
        #[command(flatten)]
        data: Data,
        /// Whose.
        name: String,
    },
}

/// Where the data lies.
#[derive(Debug, Clone, Args)]
pub struct Data {
    /// The data folder. Default: $STATE_DIRECTORY, else /var/lib/groundcrewd for root, else
    /// $XDG_STATE_HOME/groundcrewd, else ~/.local/state/groundcrewd.
    #[arg(long = "data", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where the data lies.
    #[command(flatten)]
    pub data: Data,
    /// Address and port to listen on; port 0 takes a free one, which is printed and written to {data}/address.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    pub listen: SocketAddr,
    /// Write the admin token of the first start to this file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub print_token_to: Option<PathBuf>,
    /// Open connections at a time; further ones wait in the kernel's queue.
    #[arg(long, value_name = "COUNT", default_value_t = 32_768)]
    pub connections_max: usize,
    /// Requests per second that one token may keep up; five times as many may come at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2_000)]
    pub requests_per_second_max: u32,
    /// Address of this server for nodes, as https://10.0.0.1:8443, for the kernel arguments of new runs. Default: the
    /// name under which the operator calls.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Days for which logs and sensor readings of ended runs are kept.
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    pub keep_logs_days: u32,
    /// GiB of logs that are kept; past it those of the runs that ended first go.
    #[arg(long, value_name = "GIB", default_value_t = 64)]
    pub keep_logs_gib: u32,
    /// Days for which ended runs are kept with everything of them.
    #[arg(long, value_name = "DAYS", default_value_t = 1_825)]
    pub keep_runs_days: u32,
    /// Percent of the disk that stay free: under it logs are answered with 507, which their senders keep, and new runs
    /// are refused; results are taken all the same.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub keep_free_percent: u8,
    /// Port of an iperf3 server that agents are told of.
    #[arg(long, value_name = "PORT")]
    pub iperf_port: Option<u16>,
    /// For tests alone: the clock of listening stands, and goes on by this many milliseconds with each SIGUSR1.
    #[arg(long, value_name = "MS", hide = true)]
    pub clock_step_ms: Option<u64>,
}

/// What the environment says of where things lie.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `STATE_DIRECTORY`, which systemd sets; several are divided by colons, and the first is ours.
    pub state_directory: Option<String>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// True for uid 0.
    pub is_root: bool,
}

impl Environment {
    /// That of this process.
    pub fn read() -> Environment {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Environment {
            state_directory: std::env::var("STATE_DIRECTORY").ok().filter(|value| !value.is_empty()),
            xdg_state_home: path("XDG_STATE_HOME").filter(|path| path.is_absolute()),
            home: path("HOME"),
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

/// No folder was named and none can be guessed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data folder: STATE_DIRECTORY, XDG_STATE_HOME and HOME are not set; give one with --data DIR")]
pub struct NoFolder;

impl Data {
    /// The data folder.
    ///
    /// # Errors
    /// Where none is named and the environment says nothing.
    pub fn folder(&self, environment: &Environment) -> Result<PathBuf, NoFolder> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        if let Some(folder) = environment.state_directory.as_deref().and_then(|text| text.split(':').next()) {
            return Ok(PathBuf::from(folder));
        }
        if environment.is_root {
            return Ok(PathBuf::from("/var/lib/groundcrewd"));
        }
        let state = environment.xdg_state_home.clone();
        let state = state.or_else(|| environment.home.as_ref().map(|home| home.join(".local/state")));
        state.map(|state| state.join("groundcrewd")).ok_or(NoFolder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_data_folder_needs_no_configuration() {
        let nothing = Environment::default();
        let user = Environment { home: Some("/home/u".into()), ..nothing.clone() };
        let xdg = Environment { xdg_state_home: Some("/x".into()), ..user.clone() };
        let root = Environment { is_root: true, ..user.clone() };
        let unit = Environment { state_directory: Some("/var/lib/a:/var/lib/b".into()), ..root.clone() };
        let guess = |environment| Data { folder: None }.folder(environment);
        assert_eq!(guess(&nothing), Err(NoFolder));
        assert_eq!(guess(&user), Ok("/home/u/.local/state/groundcrewd".into()));
        assert_eq!(guess(&xdg), Ok("/x/groundcrewd".into()));
        assert_eq!(guess(&root), Ok("/var/lib/groundcrewd".into()));
        assert_eq!(guess(&unit), Ok("/var/lib/a".into()));
        assert_eq!(Data { folder: Some("/d".into()) }.folder(&unit), Ok("/d".into()));
    }
}
