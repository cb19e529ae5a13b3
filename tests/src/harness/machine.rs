//! A machine with an agent: its home, its PATH, its load.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use groundcrew_durable::fault::ON_DISK;
use groundcrew_protocol::ids::TokenText;

use super::cgroup::Cgroup;
use super::process::Process;
use super::server::{Run, Server};
use super::{Load, binary, cgroup};

/// Orders arrive with the answers to heartbeats; nobody wants to wait ten seconds for each.
const HEARTBEAT_INTERVAL_MS: &str = "200";

/// A machine. What it is made of is this machine's; home, tools and keys are its own.
#[derive(Debug)]
pub struct Machine {
    folder: PathBuf,
    /// Its load, which does what a test tells it.
    pub load: Load,
    agent: Option<Process>,
    url: String,
    run: Run,
    pin: String,
    packages: &'static str,
    interrupts: &'static str,
    hooks: Option<PathBuf>,
    /// Its home, where that is in memory.
    in_memory: Option<tempfile::TempDir>,
    cgroup: Option<PathBuf>,
}

impl Machine {
    /// A machine for a run, with an empty home. Nothing runs on it yet.
    pub fn new(server: &Server, run: &Run, name: &str) -> Machine {
        let folder = server.beside(name);
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).expect("the folder is ours");
        let load = Load::install(&folder, &bin);
        let (url, pin) = (server.url().to_owned(), server.fingerprint().to_owned());
        let (run, packages, interrupts) = (run.clone(), "no", "no");
        let (in_memory, hooks, cgroup) = (None, None, None);
        Machine { folder, load, agent: None, url, run, pin, packages, interrupts, hooks, in_memory, cgroup }
    }

    /// One with its agent started.
    pub fn started(server: &Server, run: &Run, name: &str) -> Machine {
        let mut machine = Machine::new(server, run, name);
        machine.start();
        machine
    }

    /// Gives the agent another boot token.
    pub fn with_token(mut self, token: TokenText) -> Machine {
        self.run.token = token;
        self
    }

    /// Gives the agent another pin.
    pub fn with_pin(mut self, pin: &str) -> Machine {
        pin.clone_into(&mut self.pin);
        self
    }

    /// Gives the agent another way to the server.
    pub fn with_url(mut self, url: &str) -> Machine {
        url.clone_into(&mut self.url);
        self
    }

    /// Lets packages be applied.
    pub fn with_packages(mut self) -> Machine {
        self.packages = "yes";
        self
    }

    /// Lets its services be restarted, and itself be rebooted.
    pub fn with_interrupts(mut self) -> Machine {
        self.interrupts = "yes";
        self
    }

    /// Puts its home where nothing outlives a boot, as a live image has it.
    pub fn with_home_in_memory(mut self) -> Machine {
        self.in_memory = Some(tempfile::tempdir_in("/dev/shm").expect("TEST needs /dev/shm"));
        self
    }

    /// Gives the node hooks, and has its home count as one on a disk, wherever tests have their folders.
    pub fn with_hooks(mut self, text: &str) -> Machine {
        let path = self.folder.join("hooks.toml");
        std::fs::write(&path, text).expect("the folder is ours");
        self.hooks = Some(path);
        self
    }

    /// Puts the agent and all that it starts into a cgroup.
    pub fn in_cgroup(mut self, cgroup: &Cgroup) -> Machine {
        self.cgroup = Some(cgroup.folder().to_owned());
        self
    }

    /// Takes the tools away.
    pub fn without_tools(self) -> Machine {
        std::fs::remove_file(self.folder.join("bin/stress-ng")).expect("the file is ours");
        self
    }

    /// Gives the agent a tool of this machine's.
    pub fn with_tool(self, name: &str) -> Machine {
        let found = std::env::split_paths("/usr/bin:/bin:/usr/sbin:/sbin").map(|folder| folder.join(name));
        let tool =
            found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is not installed"));
        std::os::unix::fs::symlink(tool, self.folder.join("bin").join(name)).expect("the folder is ours");
        self
    }

    /// The agent's home.
    pub fn home(&self) -> PathBuf {
        self.in_memory.as_ref().map_or(&*self.folder, tempfile::TempDir::path).join("home")
    }

    /// Where the key of a hold goes.
    pub fn authorized_keys(&self) -> PathBuf {
        self.folder.join("authorized_keys")
    }

    /// Copies another machine's home, file by file, as a cloned disk has it.
    ///
    /// The record of children names processes of the other machine. On a machine of its own the boot would tell; here
    /// both machines are one, and the copy would end them.
    pub fn clone_home_of(&self, other: &Machine) {
        copy_folder(&other.home(), &self.home());
        std::fs::remove_file(self.home().join("child.json")).expect("a stage was under way");
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the agent with more in its environment.
    pub fn start_with(&mut self, more: &[(&str, &str)]) {
        assert!(self.agent.is_none(), "the agent runs already");
        self.agent = Some(self.agent_with(more));
    }

    /// Starts an agent on this home, whether or not there is one.
    pub fn second_agent(&self) -> Process {
        self.agent_with(&[])
    }

    fn agent_with(&self, more: &[(&str, &str)]) -> Process {
        let mut command = match &self.cgroup {
            Some(folder) => cgroup::command_in(folder, &binary("groundcrew")),
            None => Command::new(binary("groundcrew")),
        };
        command
            .arg("agent")
            .env_clear()
            .env("PATH", self.folder.join("bin"))
            .env("GROUNDCREW_URL", &self.url)
            .env("GROUNDCREW_RUN", self.run.id.as_str())
            .env("GROUNDCREW_TOKEN", self.run.token.as_str())
            .env("GROUNDCREW_FPR", &self.pin)
            .env("GROUNDCREW_HOME", self.home())
            .env("GROUNDCREW_ALLOW_PACKAGES", self.packages)
            .env("GROUNDCREW_ALLOW_REBOOT", self.interrupts)
            .env("GROUNDCREW_ALLOW_SERVICES", self.interrupts)
            .env("GROUNDCREW_AUTHORIZED_KEYS", self.authorized_keys())
            .env("GROUNDCREW_HEARTBEAT_INTERVAL_MS", HEARTBEAT_INTERVAL_MS);
        if let Some(hooks) = &self.hooks {
            command.env("GROUNDCREW_HOOKS", hooks).env(ON_DISK, "yes");
        }
        command.envs(more.iter().copied());
        let name = self.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        Process::start(&format!("agent of {}", name.unwrap_or_default()), &mut command)
    }

    /// The agent's process, which must be there.
    pub fn agent(&self) -> &Process {
        self.agent.as_ref().expect("the agent was started")
    }

    /// Kills the agent. Its process, for what it said.
    pub fn kill(&mut self) -> Process {
        let mut agent = self.agent.take().expect("the agent was started");
        agent.kill();
        agent
    }

    /// Stops the agent in order.
    pub fn stop(&mut self) -> ExitStatus {
        self.agent.take().expect("the agent was started").stop()
    }

    /// Waits for the agent's own end.
    pub fn wait(&mut self) -> ExitStatus {
        self.agent.as_mut().expect("the agent was started").wait()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is ours");
    for entry in std::fs::read_dir(from).expect("the folder is ours") {
        let entry = entry.expect("the folder is ours");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target);
        } else if entry.file_type().expect("the folder is ours").is_socket() {
            // What answers there is the process, and no part of the home.
        } else {
            match std::fs::copy(&source, &target) {
                Ok(_) => {}
                // The agent is at work and has taken it away meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("copying {}: {error}", source.display()),
            }
        }
    }
}
