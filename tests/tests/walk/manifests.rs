//! The manifests of deploy/kubernetes, as far as a pod is a process with its command, environment, folders and probes.

use std::path::Path;
use std::process::Command;

use groundcrew_agent::supervise::END_MAX;
use groundcrew_tests::harness::{Process, Run, Server, binary, eventually, in_own_mounts, mount};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Whatever this machine makes of it: the agent lives on.
const PROFILE: &str = "name = \"short\"\n[[stage]]\nname = \"Inventory\"\n";
const UID: &str = "0b2c8f4e-6d1a-4c55-9a53-0c8d7e1f2a3b";

/// The pod of an agent, as one of the manifests has it.
struct Pod {
    container: Value,
    /// What a cluster would make of the Secret.
    secret: Vec<(&'static str, String)>,
    bin: std::path::PathBuf,
}

impl Pod {
    fn of(manifest: &str, server: &Server) -> Pod {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
        let text = std::fs::read_to_string(folder.join(manifest)).expect("the manifest is there");
        let mut all: Value = serde_yaml_ng::from_str(&text).expect("it is YAML");
        let container = all["spec"]["template"]["spec"]["containers"][0].take();
        let bin = server.beside("bin");
        std::fs::create_dir(&bin).expect("the folder is ours");
        std::os::unix::fs::symlink(binary("groundcrew"), bin.join("groundcrew")).expect("the folder is ours");
        Pod { container, secret: Vec::new(), bin }
    }

    /// A command of the container's, with its environment.
    fn command(&self, argv: &Value) -> Command {
        let mut words =
            argv.as_array().expect("a command is a list").iter().map(|word| word.as_str().unwrap());
        // As the image has it on its PATH.
        let mut command = Command::new(self.bin.join(words.next().expect("a command names a program")));
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for variable in self.container["env"].as_array().expect("it has an environment") {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.uid") => UID,
                Some(other) => panic!("the manifest asks for {other}"),
                None => variable["value"].as_str().expect("a variable has a value"),
            };
            command.env(variable["name"].as_str().expect("a variable has a name"), value);
        }
        command.envs(self.secret.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The exit status of the probe.
    fn probe(&self) -> i32 {
        let output = self
            .command(&self.container["startupProbe"]["exec"]["command"])
            .output()
            .expect("the probe can be started");
        output.status.code().expect("it ends by itself")
    }

    /// The folder that outlives the pod, as its volume is mounted.
    fn home(&self) -> String {
        let mounts = self.container["volumeMounts"].as_array().expect("it has volumes");
        let home = mounts.iter().find(|one| one["name"] == "home").expect("one of them is its home");
        home["mountPath"].as_str().expect("a volume has its place").to_owned()
    }

    /// Starts it, and sees what its probe says of it through its life.
    fn live(&self, server: &Server, run: &Run) {
        std::fs::create_dir_all(self.home()).expect("the mount is ours");
        assert_eq!(self.probe(), 2, "no agent has lived in that home");
        let start = || Process::start("the agent of a pod", &mut self.command(&self.container["command"]));
        let mut agent = start();
        eventually("an agent that the probe finds well", || (self.probe() == 0).then_some(()));
        server.wait_for(run, "the claim of the pod's agent", |view| view.claim.0 == 1);
        let said =
            std::fs::read(Path::new(&self.home()).join("agent-info.json")).expect("the agent wrote it");
        let said: Value = serde_json::from_slice(&said).expect("it is whole");
        assert_eq!((&said["runtime"], &said["runtime_id"]), (&json!("kubernetes"), &json!(UID)));
        agent.kill();
        assert_eq!(self.probe(), 1, "a container without its agent is started again");
        let mut agent = start();
        server.wait_for(run, "the next claim", |view| view.claim.0 == 2);
        eventually("the next agent", || (self.probe() == 0).then_some(()));
        agent.signal(Signal::TERM);
        assert!(agent.wait().success());
        assert_eq!(self.probe(), 0, "it has ended and said so");
    }
}

/// The server is reached by what a node or a Secret says of it.
fn parameters(server: &Server, run: &Run) -> [(&'static str, String); 4] {
    [
        ("URL", server.url().to_owned()),
        ("FPR", server.fingerprint().to_owned()),
        ("RUN", run.id.to_string()),
        ("TOKEN", run.token.as_str().to_owned()),
    ]
}

/// Nothing of this machine's is under it in these mounts.
fn own_folders() {
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib"]);
}

/// What its own limits add up to.
#[test]
fn whoever_ends_an_agent_has_the_patience_for_an_orderly_end() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let read = |file: &str| std::fs::read_to_string(deploy.join(file)).expect("the file is there");
    for manifest in ["kubernetes/agent-job.yaml", "kubernetes/agent-daemonset.yaml"] {
        let all: Value = serde_yaml_ng::from_str(&read(manifest)).expect("it is YAML");
        let grace = all["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
        assert!(grace.is_some_and(|grace| grace > END_MAX.as_secs()), "{manifest}: {grace:?}, {END_MAX:?}");
        let words = format!("{} s at most", END_MAX.as_secs());
        assert!(read(manifest).contains(&words), "{manifest} says another time than {words:?}");
    }
    let unit = read("systemd/groundcrew.service");
    let patience = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
    let patience: u64 = patience.expect("it says so").parse().expect("it is a number");
    assert!(patience > END_MAX.as_secs(), "{patience} s, {END_MAX:?}");
}

#[test]
fn the_agent_of_the_job_runs_and_its_probes_tell_how_it_is() {
    in_own_mounts(|| {
        own_folders();
        let server = Server::start();
        let run = server.create_run("n1", PROFILE);
        let mut pod = Pod::of("agent-job.yaml", &server);
        let names = ["GROUNDCREW_URL", "GROUNDCREW_FPR", "GROUNDCREW_RUN", "GROUNDCREW_TOKEN"];
        pod.secret = names.into_iter().zip(parameters(&server, &run).map(|(_, value)| value)).collect();
        pod.live(&server, &run);
    });
}

#[test]
fn the_agent_of_the_daemon_set_runs_by_the_kernel_s_command_line() {
    in_own_mounts(|| {
        own_folders();
        let server = Server::start();
        let run = server.create_run("n1", PROFILE);
        let pod = Pod::of("agent-daemonset.yaml", &server);
        let words = parameters(&server, &run)
            .map(|(name, value)| format!("groundcrew.{}={value}", name.to_lowercase()));
        let line = server.beside("cmdline");
        std::fs::write(&line, format!("ro quiet {}\n", words.join(" "))).expect("the folder is ours");
        mount(&["--bind", &line.display().to_string(), "/proc/cmdline"]);
        pod.live(&server, &run);
    });
}
