//! `groundcrewctl up`: an orchestrator and an agent of this machine, one run, and its report.
//!
//! Everything that is started is stopped again, in order, however it ends: [`children`] also ties it to this process,
//! for the ends that leave no time. Everything that is written lies in two folders: data, which are removed, and the
//! report with the output of both programs, which stays.

mod children;
mod folders;
mod orphans;
mod outcome;

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use groundcrew_client::{BaseUrl, Client, PinSet, parse_pins};
use groundcrew_protocol::ids::{NodeName, ProfileName, RunId, TokenText};
use groundcrew_protocol::operator::{CreateRun, Node, RunCreated};
use groundcrew_protocol::profile::{Leave, Profile};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Api;
use crate::arguments::UpArguments;
use crate::error::{Interrupted, NotCompleted, Usage};
use crate::output::{Reader, print, say_aside};
use crate::profile_file::read_profile;
use crate::watch::{self, End, Face};
use children::{Agent, Orchestrator, Tie};
use folders::Folders;

/// The name of this machine where its host name is none that a node can have.
const NODE: &str = "this-machine";

/// Brings everything up, and down again.
///
/// # Errors
/// What kept the run from Completed, a signal, or a wrong command line.
pub(crate) async fn run(arguments: UpArguments, json: bool, reader: Reader) -> Result<()> {
    let mut stop = Stop::listen()?;
    let profile = read_profile(&arguments.profile).map_err(|error| Usage(format!("{error:#}")))?;
    let profile = with_leave(profile);
    let binaries = binaries(&arguments)?;
    let mut folders = Folders::prepare(&arguments)?;
    orphans::adopt()?;
    let tie = if arguments.keep { Tie::Loose } else { Tie::ToUs };
    let face = match (json, reader.is_terminal) {
        (true, _) => Face::LinesToStderr,
        (false, true) => Face::Bars(reader),
        (false, false) => Face::Lines,
    };
    let mut up = Up { orchestrator: None, agent: None, tie, face, json, reader };
    let walked = tokio::select! {
        walked = up.walk(&binaries, &folders, profile) => walked,
        interrupted = stop.wait() => Err(interrupted.into()),
    };
    let was_interrupted = walked.as_ref().is_err_and(|error| error.is::<Interrupted>());
    // A run that never began leaves nothing that somebody could look at.
    let has_run = walked.as_ref().is_ok_and(|walked| walked.is_some());
    if let Err(error) = &walked
        && !was_interrupted
    {
        say_aside(&folders.tails());
        say_aside(&format!("groundcrewctl: {error:#}"));
    }
    if arguments.keep && has_run && !was_interrupted {
        folders.keep();
        return up.leave(&folders, walked);
    }
    up.put_away(&mut stop).await;
    if was_interrupted {
        say_aside(&format!("groundcrewctl: what both programs printed is in {}", folders.report().display()));
    }
    folders.remove()?;
    finished(walked)
}

/// What was come to.
type Walked = Result<Option<(RunId, End)>>;

fn finished(walked: Walked) -> Result<()> {
    match walked {
        Ok(Some((_, End::Completed))) => Ok(()),
        // Its reason was printed.
        Ok(Some((_, End::Held | End::Cancelled)) | None) => Err(NotCompleted.into()),
        Err(error) if error.is::<Interrupted>() => Err(error),
        // It was printed with the tails of the output.
        Err(_) => Err(NotCompleted.into()),
    }
}

/// Both programs.
struct Binaries {
    groundcrewd: std::path::PathBuf,
    groundcrew: std::path::PathBuf,
}

fn binaries(arguments: &UpArguments) -> Result<Binaries> {
    let folder = match &arguments.bin_dir {
        Some(folder) => folder.clone(),
        None => {
            let own = std::env::current_exe().context("finding this program's own folder")?;
            own.parent().unwrap_or(Path::new("/")).to_path_buf()
        }
    };
    let find = |name: &str| {
        let path = folder.join(name);
        let path = path.canonicalize().map_err(|error| {
            Usage(format!("{} is needed ({error}): give its folder with --bin-dir", path.display()))
        })?;
        Ok::<_, Usage>(path)
    };
    Ok(Binaries { groundcrewd: find("groundcrewd")?, groundcrew: find("groundcrew")? })
}

/// What is up.
struct Up {
    orchestrator: Option<Orchestrator>,
    agent: Option<Agent>,
    tie: Tie,
    face: Face,
    json: bool,
    reader: Reader,
}

impl Up {
    /// Starts both programs and follows the run to its end, then writes the report.
    async fn walk(&mut self, binaries: &Binaries, folders: &Folders, profile: (String, Profile)) -> Walked {
        self.say(&format!("Starting the orchestrator; data in {}", folders.data().display()))?;
        let orchestrator = Orchestrator::start(&binaries.groundcrewd, folders, self.tie).await?;
        let (url, fingerprint) = (orchestrator.url.clone(), orchestrator.fingerprint.clone());
        let token = orchestrator.token.clone();
        self.orchestrator = Some(orchestrator);
        let api = connect(&url, &fingerprint, token)?;
        let created = make_run(&api, profile).await?;
        let run = created.run.clone();
        self.say(&format!("Page  {}", page_of(&url, &run)))?;
        let environment = [
            ("GROUNDCREW_URL", url.as_str()),
            ("GROUNDCREW_RUN", run.as_str()),
            ("GROUNDCREW_TOKEN", created.boot_token.as_str()),
            ("GROUNDCREW_FPR", fingerprint.as_str()),
        ];
        self.agent = Some(Agent::start(&binaries.groundcrew, folders, &environment, self.tie)?);
        let end = self.follow(&api, &run).await?;
        // The agent's last lines belong into the report: it sends them before it ends.
        let is_kept = self.tie == Tie::Loose;
        if let Some(agent) = self.agent.take_if(|_| !is_kept) {
            agent.child.end(std::future::pending::<()>()).await;
        }
        let page = page_of(&url, &run);
        let look = outcome::Look { json: self.json, reader: self.reader, page: &page, is_kept };
        outcome::show(&api, &run, end, folders, &look).await?;
        Ok(Some((run, end)))
    }

    /// Follows the run, for as long as both programs live.
    async fn follow(&mut self, api: &Api, run: &RunId) -> Result<End> {
        let (Some(orchestrator), Some(agent)) = (&mut self.orchestrator, &mut self.agent) else {
            bail!("both programs are needed to follow a run");
        };
        let options = watch::Options { through_holds: false, face: self.face };
        let mut watching = std::pin::pin!(watch::run(api, run, options));
        tokio::select! {
            end = &mut watching => return end,
            status = orchestrator.child.ended() => bail!("the orchestrator ended before the run did: {status}"),
            status = agent.child.ended() => {
                // It may have ended because the run has; then the watch says so right away.
                let view = api.run(run).await.map_err(crate::api::explained)?;
                if !view.summary.state.is_ended() {
                    bail!("the agent ended before the run did: {status}");
                }
            }
        }
        watching.await
    }

    fn say(&self, text: &str) -> Result<()> {
        if self.json {
            say_aside(text);
            return Ok(());
        }
        print(&format!("{text}\n"))
    }

    /// Stops what is up, the agent first: its last words need somebody to hear them.
    async fn put_away(&mut self, stop: &mut Stop) {
        if let Some(agent) = self.agent.take() {
            agent.child.end(stop.wait()).await;
        }
        if let Some(orchestrator) = self.orchestrator.take() {
            orchestrator.child.end(stop.wait()).await;
        }
    }

    /// Lets everything run on, and says how to reach it and how to end it.
    fn leave(&mut self, folders: &Folders, walked: Walked) -> Result<()> {
        if let (Some(orchestrator), Some(agent)) = (self.orchestrator.take(), self.agent.take()) {
            let (token_file, data) = (folders.token_file(), folders.data());
            self.say(&format!(
                "\nStill running, as --keep asks. The page takes the token in the file named below. To ask it:\n  \
                 export GROUNDCREW_URL={} GROUNDCREW_FPR={} GROUNDCREW_OPERATOR_TOKEN={}\n  \
                 groundcrewctl run list\n\
                 To stop it and remove its data:\n  kill{} {}\n  rm -r {}",
                orchestrator.url,
                orchestrator.fingerprint,
                token_file.display(),
                agent.child.id().map_or_else(String::new, |id| format!(" {id}")),
                orchestrator.child.id().map_or_else(String::new, |id| id.to_string()),
                data.display(),
            ))?;
            agent.child.leave();
            orchestrator.child.leave();
        }
        finished(walked)
    }
}

/// The page of a run.
fn page_of(url: &str, run: &RunId) -> String {
    format!("{url}/runs/{run}")
}

fn connect(url: &str, fingerprint: &str, token: TokenText) -> Result<Api> {
    let base: BaseUrl =
        url.parse().with_context(|| format!("the orchestrator says that it listens on {url}"))?;
    let pins = parse_pins(fingerprint).context("the orchestrator's fingerprint")?;
    Ok(Api::new(Client::new(base, PinSet::new(pins), Some(token))))
}

async fn make_run(api: &Api, (text, profile): (String, Profile)) -> Result<RunCreated> {
    let name: ProfileName = profile.name;
    let node = Node { name: this_node(), serial: None, macs: Vec::new(), labels: Default::default() };
    api.put(&format!("/api/v1/nodes/{}", node.name), &node).await.context("making the node")?;
    api.put_profile(name.as_str(), text).await.context("putting the profile")?;
    let request = CreateRun { node: node.name, profile: name, notify: Vec::new() };
    api.post("/api/v1/runs", &request).await.context("making the run")?.parse()
}

/// A profile that lets its stages load this machine: whoever types `up` on it asks for that, as with `vet`.
fn with_leave((text, profile): (String, Profile)) -> (String, Profile) {
    if profile.stages.iter().all(|spec| profile.leave(spec) != Leave::Missing) {
        return (text, profile);
    }
    let profile = Profile { in_service: true, ..profile };
    (profile.to_toml(), profile)
}

/// The host name as a node's name.
fn this_node() -> NodeName {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_lowercase();
    host.parse().unwrap_or_else(|_| NODE.parse().expect("it is a node name"))
}

/// The signals that ask us to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn listen() -> Result<Stop> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Stop {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    async fn wait(&mut self) -> Interrupted {
        tokio::select! {
            _ = self.interrupt.recv() => Interrupted { name: "SIGINT", number: 2 },
            _ = self.terminate.recv() => Interrupted { name: "SIGTERM", number: 15 },
            _ = self.hang_up.recv() => Interrupted { name: "SIGHUP", number: 1 },
        }
    }
}

/// Writes a file of the report.
fn write(path: &Path, bytes: &Bytes) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
