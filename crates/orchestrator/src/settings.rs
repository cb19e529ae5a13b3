//! What `groundcrewd` is told on its command line, and where its data lies when it is told nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::agents::homes::Homes;
use crate::kubernetes::decide::Names;
use crate::kubernetes::observe::{Access, Cluster};
use clap::{Args, Parser, Subcommand};

/// The port that the orchestrator listens on where none is given.
pub const PORT: u16 = 8443;
/// Name of the file with the key that seals private keys.
const KEY_FILE: &str = "groundcrewd.key";
/// Where settings of a machine lie.
const SETTINGS_FOLDER: &str = "/etc/groundcrew";

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
    Serve(Box<Serve>),
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
        /// Move what the data folder holds aside first, into a folder replaced-TIME inside it, which is printed. Nothing is
        /// swept of that and no backup takes it in: remove it once nobody needs it any more.
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
    /// Make the next certificate and announce it; it is served once every agent of the last 7 days knows it, after 10
    /// minutes at the earliest.
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
    /// The file with the key that seals the certificate's private key; keep it apart from the data folder and its
    /// backups. It is made with mode 0600 where it is missing. Default: groundcrewd.key in $CREDENTIALS_DIRECTORY or in
    /// /etc/groundcrew, where it is there and can be read; else, where --data names the folder, that name with `.key` at
    /// its end; else groundcrewd.key in /etc/groundcrew for root, in $XDG_CONFIG_HOME/groundcrew or ~/.config/groundcrew.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
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
    /// Keep up an iperf3 server, with which nodes measure their links where a profile names the peer `orchestrator`: one client
    /// at a time, at the address that this server listens on. Whoever reaches its port may fill the link.
    #[arg(long)]
    pub iperf3: bool,
    /// Port of the iperf3 server that agents are told of: of one that somebody else runs on this host, and with --iperf3 of the
    /// one that this server keeps up (5201 where nothing is said).
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub iperf_port: Option<u16>,
    /// Mb/s of the link that the iperf3 server serves over: a node with a faster link cannot be judged by it.
    #[arg(long, value_name = "MBPS", value_parser = clap::value_parser!(u32).range(1..))]
    pub iperf_link_mbps: Option<u32>,
    /// Where the homes of agents lie that share a file system with this server, as /srv/{namespace}/{agent}: agents of this
    /// host are watched, and how one ended comes into its agent-info.json.
    #[arg(long, value_name = "PATH")]
    pub agent_homes: Option<Homes>,
    /// A file of TOML with the sinks that are told when agents or this server shut down, as deploy/notify.toml shows them.
    /// Its addresses are secrets: others may not read it.
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
    /// Which pods of agents are watched.
    #[command(flatten)]
    pub kubernetes: KubernetesArguments,
    /// For tests alone: the clock of listening stands, and goes on by this many milliseconds with each SIGUSR1.
    #[arg(long, value_name = "MS", hide = true)]
    pub clock_step_ms: Option<u64>,
}

/// By whose names pods of agents are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NamesOf {
    /// Those of deploy/kubernetes: pods with app.kubernetes.io/name=groundcrew-agent, called by the label groundcrew.dev/agent.
    Groundcrew,
    /// Those of Scion: pods with scion.agent=true, called by the label scion.name.
    Scion,
}

impl NamesOf {
    fn names(self) -> Names {
        let [selector, agent, run, container] = match self {
            NamesOf::Groundcrew => [
                "app.kubernetes.io/name=groundcrew-agent",
                "groundcrew.dev/agent",
                "groundcrew.dev/run",
                "agent",
            ],
            NamesOf::Scion => ["scion.agent=true", "scion.name", "scion.run", "agent"],
        };
        let [selector, agent, run, container] = [selector, agent, run, container].map(str::to_owned);
        Names { selector, agent, run, container }
    }
}

/// Which pods of agents are watched, and by which names they are known.
#[derive(Debug, Args)]
pub struct KubernetesArguments {
    /// Watch the pods of agents: `in-cluster` with the service account of this pod, or the path of a kubeconfig. It takes
    /// get, list and watch on pods.
    #[arg(long, value_name = "in-cluster|FILE")]
    pub kubernetes: Option<PathBuf>,
    /// The one namespace that is watched. Default: all.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    pub kubernetes_namespace: Option<String>,
    /// By whose names pods of agents are known; each can be said on its own below.
    #[arg(long, value_enum, default_value = "groundcrew", requires = "kubernetes")]
    pub kubernetes_names: NamesOf,
    /// Label selector of their pods.
    #[arg(long, value_name = "SELECTOR", requires = "kubernetes")]
    pub kubernetes_selector: Option<String>,
    /// Label or annotation that holds an agent's name; a pod without it is called by its own, one of a DaemonSet by its node.
    #[arg(long, value_name = "KEY", requires = "kubernetes")]
    pub kubernetes_agent_key: Option<String>,
    /// Label or annotation that holds an agent's run.
    #[arg(long, value_name = "KEY", requires = "kubernetes")]
    pub kubernetes_run_key: Option<String>,
    /// Name of the agent's container, in pods with several.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    pub kubernetes_container: Option<String>,
}

impl KubernetesArguments {
    /// The cluster, where one is named.
    pub fn cluster(self) -> Option<Cluster> {
        let path = self.kubernetes?;
        let preset = self.kubernetes_names.names();
        let in_cluster = path.as_os_str() == "in-cluster";
        Some(Cluster {
            access: if in_cluster { Access::InCluster } else { Access::Kubeconfig(path) },
            namespace: self.kubernetes_namespace,
            names: Names {
                selector: self.kubernetes_selector.unwrap_or(preset.selector),
                agent: self.kubernetes_agent_key.unwrap_or(preset.agent),
                run: self.kubernetes_run_key.unwrap_or(preset.run),
                container: self.kubernetes_container.unwrap_or(preset.container),
            },
        })
    }
}

/// What the environment says of where things lie.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `STATE_DIRECTORY`, which systemd sets; several are divided by colons, and the first is ours.
    pub state_directory: Option<String>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`, which systemd sets.
    pub credentials: Option<PathBuf>,
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
            xdg_config_home: path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()),
            credentials: path("CREDENTIALS_DIRECTORY"),
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

    /// The file of the key that seals private keys; `can_read` says what is there.
    ///
    /// # Errors
    /// As [`Data::folder`].
    pub fn key_file(
        &self,
        environment: &Environment,
        can_read: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf, NoFolder> {
        if let Some(file) = &self.key_file {
            return Ok(file.clone());
        }
        let given = environment.credentials.iter().map(PathBuf::as_path).chain([Path::new(SETTINGS_FOLDER)]);
        if let Some(found) = given.map(|folder| folder.join(KEY_FILE)).find(|file| can_read(file)) {
            return Ok(found);
        }
        let of_root = environment.is_root.then(|| PathBuf::from(SETTINGS_FOLDER));
        let config = environment.xdg_config_home.clone();
        let config = config.or_else(|| environment.home.as_ref().map(|home| home.join(".config")));
        let settings = of_root.or(config.map(|config| config.join("groundcrew")));
        let data = self.folder(environment)?;
        match settings.filter(|settings| self.folder.is_none() && !settings.starts_with(&data)) {
            Some(settings) => Ok(settings.join(KEY_FILE)),
            // Never inside the folder, whose backups would hold the key beside what it seals.
            None => {
                let mut beside = data.components().as_path().as_os_str().to_owned();
                beside.push(".key");
                Ok(PathBuf::from(beside))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Tests serve with other shares, since their disk may be nearly full.
    #[test]
    fn a_twentieth_of_the_disk_stays_free_unless_told() {
        let matches = Serve::augment_args(clap::Command::new("serve")).get_matches_from(["serve"]);
        let serve = <Serve as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        assert_eq!(serve.keep_free_percent, 5);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn pods_are_known_by_a_preset_and_by_what_is_said_over_it() {
        let serve = |more: &[&str]| {
            let words = ["groundcrewd", "serve"].iter().chain(more);
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Serve(serve)) => Ok(serve.kubernetes.cluster()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        assert_eq!(serve(&[]).unwrap(), None);
        let found = serve(&[
            "--kubernetes",
            "in-cluster",
            "--kubernetes-names",
            "scion",
            "--kubernetes-container",
            "main",
        ]);
        let found = found.unwrap().unwrap();
        assert_eq!((&found.access, &found.namespace), (&Access::InCluster, &None));
        assert_eq!(
            (found.names.selector.as_str(), found.names.agent.as_str()),
            ("scion.agent=true", "scion.name")
        );
        assert_eq!(found.names.container, "main");
        let found =
            serve(&["--kubernetes", "/etc/kube.conf", "--kubernetes-namespace", "lab"]).unwrap().unwrap();
        assert_eq!(found.access, Access::Kubeconfig("/etc/kube.conf".into()));
        assert_eq!(
            (found.namespace.as_deref(), found.names.run.as_str()),
            (Some("lab"), "groundcrew.dev/run")
        );
        assert!(serve(&["--kubernetes-namespace", "lab"]).is_err(), "of which cluster?");
    }

    #[test]
    fn the_data_folder_needs_no_configuration() {
        let nothing = Environment::default();
        let user = Environment { home: Some("/home/u".into()), ..nothing.clone() };
        let xdg = Environment { xdg_state_home: Some("/x".into()), ..user.clone() };
        let root = Environment { is_root: true, ..user.clone() };
        let unit = Environment { state_directory: Some("/var/lib/a:/var/lib/b".into()), ..root.clone() };
        let guess = |environment| Data { folder: None, key_file: None }.folder(environment);
        assert_eq!(guess(&nothing), Err(NoFolder));
        assert_eq!(guess(&user), Ok("/home/u/.local/state/groundcrewd".into()));
        assert_eq!(guess(&xdg), Ok("/x/groundcrewd".into()));
        assert_eq!(guess(&root), Ok("/var/lib/groundcrewd".into()));
        assert_eq!(guess(&unit), Ok("/var/lib/a".into()));
        assert_eq!(Data { folder: Some("/d".into()), key_file: None }.folder(&unit), Ok("/d".into()));
    }

    #[test]
    fn the_key_file_needs_no_configuration_and_lies_outside_the_data_folder() {
        let user = Environment { home: Some("/home/u".into()), ..Environment::default() };
        let root = Environment { is_root: true, ..user.clone() };
        let unit = Environment {
            credentials: Some("/run/credentials/g".into()),
            home: Some("/var/lib/groundcrewd".into()),
            state_directory: Some("/var/lib/groundcrewd".into()),
            ..Environment::default()
        };
        let guessed = Data { folder: None, key_file: None };
        let named = Data { folder: Some("/d/data/".into()), key_file: None };
        let given = Data { key_file: Some("/k".into()), ..named.clone() };
        let file = |data: &Data, environment: &Environment, there: &[&str]| {
            let can_read = |path: &Path| there.iter().any(|one| path == Path::new(one));
            data.key_file(environment, can_read).unwrap().into_os_string().into_string().unwrap()
        };
        let of_unit = "/run/credentials/g/groundcrewd.key";
        let of_root = "/etc/groundcrew/groundcrewd.key";
        assert_eq!(file(&given, &unit, &[of_unit]), "/k");
        assert_eq!(file(&guessed, &unit, &[of_unit]), of_unit);
        assert_eq!(file(&guessed, &unit, &[]), "/var/lib/groundcrewd.key", "its home is its data folder");
        assert_eq!(file(&guessed, &root, &[]), of_root);
        assert_eq!(file(&named, &root, &[of_root]), of_root);
        assert_eq!(file(&named, &user, &[of_root]), of_root, "made for it to read");
        assert_eq!(file(&named, &user, &[]), "/d/data.key");
        assert_eq!(file(&named, &root, &[]), "/d/data.key");
        assert_eq!(file(&guessed, &user, &[]), "/home/u/.config/groundcrew/groundcrewd.key");
    }
}
