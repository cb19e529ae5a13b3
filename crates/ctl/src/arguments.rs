//! The command line of `groundcrewctl`.

mod hold;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use groundcrew_protocol::ids::{
    DrainId, MacAddress, NodeName, PackageName, PackageVersion, ProfileName, RunId, SinkName,
};
use groundcrew_protocol::time::parse_span_ms;
pub(crate) use hold::{HoldKeyCommand, RunKeyArguments, SshArguments};

/// Asks and instructs a Groundcrew orchestrator.
#[derive(Debug, Parser)]
#[command(
    name = "groundcrewctl",
    version,
    after_help = "Exit codes: 0 done, 1 failed or refused, 64 usage; of `run watch` and `up`: 0 Completed, 1 held or \
        cancelled, 128 and its number where a signal ended them.\n\
        The connection comes from flags, else GROUNDCREW_URL, GROUNDCREW_FPR and GROUNDCREW_OPERATOR_TOKEN, else \
        ~/.config/groundcrew/ctl.toml with the keys url, fpr and token (mode 0600)."
)]
pub(crate) struct Arguments {
    /// How to reach the orchestrator.
    #[command(flatten)]
    pub(crate) connection: ConnectionFlags,
    /// Print the API's JSON instead of text for people; a failure is one object {error, code, status} on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the orchestrator.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionFlags {
    /// Address of the orchestrator, as https://10.0.0.1:8443.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// SHA-256 of its certificate, as `groundcrewd fingerprint` prints it; several with commas.
    #[arg(long, global = true, value_name = "SHA256")]
    pub(crate) fpr: Option<String>,
    /// An operator's token, or the path of a file that holds it, which keeps it out of process lists.
    #[arg(long, global = true, value_name = "TOKEN|FILE")]
    pub(crate) token: Option<String>,
    /// The context file to read instead of ~/.config/groundcrew/ctl.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Machines.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Profiles: which stages a run walks, with their settings and limits.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Packages that the orchestrator stores.
    #[command(subcommand)]
    Package(PackageCommand),
    /// List agents: what each does, or how it ended.
    Agents,
    /// Runs: one machine walked through a profile, made, followed and decided upon.
    #[command(subcommand)]
    Run(RunCommand),
    /// Raw output of the tools of a run.
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Operators' tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The SSH keys that operators have registered for held machines.
    #[command(subcommand)]
    HoldKey(HoldKeyCommand),
    /// Show the certificate that is served, and how a rotation stands.
    Certificate,
    /// Show how the tasks do that the orchestrator keeps up beside answering.
    Tasks,
    /// List who did what, newest first.
    Audit(PageArguments),
    /// Start an orchestrator and an agent on this machine, and walk one run to its end.
    Up(UpArguments),
}

/// Machines.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List them.
    List(PageArguments),
    /// Make or replace one.
    Put {
        /// Its name.
        name: NodeName,
        /// Serial of the machine.
        #[arg(long)]
        serial: Option<String>,
        /// Address of an interface; may be given again.
        #[arg(long = "mac", value_name = "MAC")]
        macs: Vec<MacAddress>,
        /// A word of your own; may be given again.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
        labels: Vec<(String, String)>,
    },
    /// Show one, and how its drains stand.
    Show {
        /// Its name.
        name: NodeName,
    },
    /// Have the agents of a node, or of every node with a label, finish what is active and start nothing more.
    Drain(DrainArguments),
    /// End the drains that were asked for with `node drain`.
    Undrain(UndrainArguments),
    /// List drains that hold nodes.
    Drains {
        /// Also those that have ended lately.
        #[arg(long)]
        ended: bool,
    },
    /// Delete one, unless a run of it is going.
    Delete {
        /// Its name.
        name: NodeName,
    },
}

/// Profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List them.
    List(PageArguments),
    /// Make or replace one; its name is in the file.
    Put {
        /// The file (TOML).
        file: PathBuf,
    },
    /// Show one as it was written.
    Show {
        /// Its name.
        name: ProfileName,
    },
    /// Write the hardware of a run's machine as the part `[expected]` of a profile, on standard output. The machine must be
    /// known to be good: no stage of the run may have failed or be open.
    FromRun {
        /// The run.
        run: RunId,
        /// Leave out serial numbers, WWNs and MAC addresses: other machines of its make meet the rest.
        #[arg(long)]
        of_make: bool,
    },
    /// Delete one. Runs keep the profile that they were made with.
    Delete {
        /// Its name.
        name: ProfileName,
    },
}

/// Packages that the orchestrator stores.
#[derive(Debug, Subcommand)]
pub(crate) enum PackageCommand {
    /// List them.
    List(PageArguments),
    /// Store one. What a version holds never changes; the same file again is fine.
    Put {
        /// Its name, as its config.json has it.
        name: PackageName,
        /// Its version, as its config.json has it.
        version: PackageVersion,
        /// Its archive: tar, plain or packed with gzip or zstd, with config.json at its top.
        file: PathBuf,
    },
    /// Show one.
    Show(PackageArgument),
    /// Delete one.
    Delete(PackageArgument),
}

/// A stored package.
#[derive(Debug, Args)]
pub(crate) struct PackageArgument {
    /// Its name.
    pub(crate) name: PackageName,
    /// Its version.
    pub(crate) version: PackageVersion,
}

/// Runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Make one.
    Create {
        /// The node.
        node: NodeName,
        /// The profile.
        profile: ProfileName,
        /// A sink of the orchestrator's settings that is told when the agent shuts down in the middle of the run; may be said
        /// several times.
        #[arg(long, value_name = "SINK")]
        notify: Vec<SinkName>,
    },
    /// List them, newest first.
    List {
        /// Only those in this state, or `going` for those that have not ended.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this node.
        #[arg(long)]
        node: Option<NodeName>,
        /// Which part of the list.
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show where one stands, and what it waits for.
    Show(RunArgument),
    /// Say in sentences why a run stands where it stands, and what to do.
    Why(RunArgument),
    /// Follow one until it ends or is held.
    Watch {
        /// The run.
        run: RunId,
        /// Go on while the run is held, until it ends.
        #[arg(long)]
        through_holds: bool,
    },
    /// Print its log.
    Logs {
        /// The run.
        run: RunId,
        /// Only lines of this stage, by its name as `run show` has it.
        #[arg(long)]
        stage: Option<String>,
        /// Print lines as they come, until the run ends.
        #[arg(long)]
        follow: bool,
    },
    /// Print its report, or write it to a file.
    Report {
        /// The run.
        run: RunId,
        /// Write the report as one HTML page to this file.
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        html: Option<PathBuf>,
        /// Write an archive for whoever made the hardware to this file (.tar.gz): the report as a page and as JSON, the raw
        /// output of tools, the log, and a list of them with their SHA-256.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "html"])]
        bundle: Option<PathBuf>,
    },
    /// Do a stage of a held run again, and everything behind it.
    Retry(RetryArguments),
    /// Let the verdict of a held run be, with a reason, and go on. The run then ends with `warn` at best.
    Override(OverrideArguments),
    /// End a run; its agent ends the stage in flight and does what the profile's at_end says.
    Cancel(EndArguments),
    /// End a hold, and with it the run: nobody needs the machine as it is any more.
    Release(EndArguments),
    /// End a run and its agent at once.
    Abort(EndArguments),
    /// Log in to the machine of a held run: with the key of its hold, or where keys are registered with yours.
    Ssh(SshArguments),
    /// Print the key that was made for the hold of a run, or write it to a file.
    HoldKey(RunKeyArguments),
    /// Make a new boot token, in place of the old one.
    Token(RunArgument),
    /// Delete one that has ended, with its log, readings and artifacts.
    Delete(RunArgument),
}

/// Raw output of the tools of a run.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// List them.
    List(RunArgument),
    /// Write the content of one to a file, or print it.
    Get {
        /// The run.
        run: RunId,
        /// Its stage.
        stage: String,
        /// Its attempt.
        attempt: u32,
        /// Its name.
        name: String,
        /// Write it to this file. Without it, it is printed; on a terminal without what would steer that.
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        output: Option<PathBuf>,
    },
}

/// Operators' tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one; it is shown this once.
    Add {
        /// Whose it is; it appears in events as who acted.
        name: String,
    },
    /// List whose there are.
    List,
    /// Take one back.
    Revoke {
        /// Whose.
        name: String,
    },
}

/// Which part of a list.
#[derive(Debug, Default, Args)]
pub(crate) struct PageArguments {
    /// Begin after this entry.
    #[arg(long)]
    pub(crate) after: Option<String>,
    /// At most this many entries.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: Option<u32>,
}

/// A run.
#[derive(Debug, Args)]
pub(crate) struct RunArgument {
    /// The run.
    pub(crate) run: RunId,
}

/// What to do again.
#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// The run.
    pub(crate) run: RunId,
    /// Go back to this stage, one that the run has been at. Default: the stage at which it is held.
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Why, if you like; it is kept in the run's events.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Let this one attempt write over the disks of the profile's `[write]`. All that is on them is lost. It lapses after an
    /// hour, and an attempt after it needs another.
    #[arg(long)]
    pub(crate) wipe: bool,
}

/// What to let be.
#[derive(Debug, Args)]
pub(crate) struct OverrideArguments {
    /// The run.
    pub(crate) run: RunId,
    /// Only if the run is held at this stage. Default: the stage at which it is held, whichever that is.
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Why the verdict may be let be. It stands in the report, with your name.
    #[arg(long)]
    pub(crate) reason: String,
}

/// What to end.
#[derive(Debug, Args)]
pub(crate) struct EndArguments {
    /// The run.
    pub(crate) run: RunId,
    /// Why, if you like; it stands in the report, with your name.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// Which nodes to drain.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DrainTargetArguments {
    /// The node.
    pub(crate) node: Option<NodeName>,
    /// Every node with this label, also one that gets it later.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Option<(String, String)>,
}

/// A drain to ask for.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// Which nodes.
    #[command(flatten)]
    pub(crate) target: DrainTargetArguments,
    /// End it after this time (30m, 2h, 1d). Without it, it stays until `node undrain`.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span_ms)]
    pub(crate) for_ms: Option<u64>,
    /// End it with this run, however that ends.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<RunId>,
    /// Why, if you like. It is shown wherever the drain is.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Send no fleet-wide notice when an agent is shut down under this drain.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Which drains to end.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct UndrainArguments {
    /// Those of this node.
    pub(crate) node: Option<NodeName>,
    /// Those of every node with this label.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Option<(String, String)>,
    /// The one with this id.
    #[arg(long, value_name = "DRAIN")]
    pub(crate) id: Option<DrainId>,
}

/// How to bring everything up on this machine.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Leave orchestrator and agent running, and say how to reach and stop them.
    #[arg(long)]
    pub(crate) keep: bool,
    /// The folder of `groundcrewd` and `groundcrew`. Default: the folder of this program.
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The profile to walk (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// Keep the data here: a folder that is new or empty, and stays. Default: a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the report and the output of both programs go; what an earlier `up` left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "groundcrew-up")]
    pub(crate) report_dir: PathBuf,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("found {text:?}, expected KEY=VALUE")),
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
    fn a_bad_value_is_named_with_what_was_expected() {
        for (line, wanted) in [
            (&["run", "show", "a_b"][..], "run id"),
            (&["node", "put", "N1"], "node name"),
            (&["node", "put", "n1", "--mac", "xx"], "MAC address"),
            (&["node", "put", "n1", "--label", "=x"], "KEY=VALUE"),
            (&["node", "drain"], "required"),
            (&["node", "drain", "n1", "--label", "a=b"], "cannot be used with"),
            (&["node", "drain", "n1", "--for", "2 hours"], "whole number"),
            (&["node", "undrain", "n1", "--id", "d-1"], "cannot be used with"),
            (&["run", "list", "--limit", "0"], "1..=500"),
            (&["run", "report", "r-1", "--html", "f", "--json"], "cannot be used with"),
            (&["package", "put", "a_b", "1", "f"], "package name"),
            (&["up"], "--profile"),
            (&["artifact", "get", "r-1", "CPUStress", "x", "n"], "invalid digit"),
            (&["hold-key", "set"], "FILE|KEY"),
            (&["hold-key", "set", "--name", "A b", "k"], "name of a hold key"),
            (&["run", "hold-key", "r-1", "--output", "f", "--json"], "cannot be used with"),
            (&["run", "override", "r-1"], "--reason"),
            (&["run", "cancel", "r-1", "--stage", "SMART"], "--stage"),
        ] {
            let words = std::iter::once("groundcrewctl").chain(line.iter().copied());
            let error = Arguments::try_parse_from(words).expect_err("it is wrong");
            assert!(error.to_string().contains(wanted), "{line:?}: {error}");
            assert!(error.use_stderr());
        }
    }

    #[test]
    fn the_connection_may_stand_behind_the_command() {
        let words = ["groundcrewctl", "run", "list", "--url", "https://h", "--json", "--state", "going"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!(arguments.connection.url.as_deref(), Some("https://h"));
        assert!(arguments.json);
    }
}
