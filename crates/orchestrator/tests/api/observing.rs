//! The built server beside a cluster: by a kubeconfig or as a pod in it, of one namespace or all, by whose names ever.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Quirk, TOKEN, ended, runs};
use crate::serving::{connect, get};

/// What has not come after this never comes.
const STUCK: Duration = Duration::from_secs(120);
/// Nothing tells that a list has changed: it is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A server, as a process of its own.
struct Observing {
    child: Child,
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
}

impl Observing {
    /// Starts one in this folder, `command` being all of it but where things lie.
    fn start(mut command: Command, folder: tempfile::TempDir) -> Observing {
        let said = File::create(folder.path().join("said")).unwrap();
        command.args(["--listen", "127.0.0.1:0", "--keep-free-percent", "0", "--data"]);
        command.arg(folder.path().join("data")).arg("--print-token-to").arg(folder.path().join("token"));
        command.env("GROUNDCREWD_LOG", "warn").stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut addresses =
            lines.filter_map(|line| line.strip_prefix("listening on https://").map(str::to_owned));
        let Some(address) = addresses.next() else {
            panic!("{:?}: {}", child.wait(), fs::read_to_string(folder.path().join("said")).unwrap())
        };
        Observing { child, address: address.parse().unwrap(), folder }
    }

    async fn ask(&self, path: &str) -> String {
        let token = fs::read_to_string(self.folder.path().join("token")).unwrap();
        let (mut sender, _) = connect(self.address).await;
        let answer = get(&mut sender, path, Some(token.trim())).await;
        assert_eq!(answer.status(), 200, "{path}");
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// Waits until the list of agents is as wanted.
    async fn wait_for(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let mut list: Value = serde_json::from_str(&self.ask("/api/v1/agents").await).unwrap();
            let Value::Array(agents) = list["agents"].take() else { panic!("{list}") };
            if wanted(&agents) {
                return agents;
            }
            let tasks = self.ask("/api/v1/tasks").await;
            assert!(began.elapsed() < STUCK, "never came: {what}; {agents:?}; {tasks}");
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        self.child.kill().expect("it runs until the test ends");
        self.child.wait().expect("a child that was killed ends");
    }
}

fn home(folder: &Path, agent: &str) -> PathBuf {
    let home = folder.join("homes/lab").join(agent);
    fs::create_dir_all(&home).unwrap();
    home.join("agent-info.json")
}

fn file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const SAID: &str = r#"{"phase":"running","activity":"thinking","owner":"lab"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_one_namespace_and_the_names_of_another_system() {
    let cluster = Cluster::start(Quirk::None).await;
    cluster.expect_selector("scion.agent=true");
    let named = |name: &str| json!({"scion.agent": "true", "scion.name": name});
    cluster.put_labelled("lab", "pod-1", named("one"), runs());
    cluster.put_labelled("lab", "pod-2", named("two"), runs());
    cluster.put_labelled("elsewhere", "pod-3", named("three"), runs());
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (home(folder.path(), "one"), home(folder.path(), "two"));
    fs::write(&one, SAID).unwrap();
    fs::write(&two, SAID).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrewd"));
    command.arg("serve").arg("--kubernetes").arg(&cluster.kubeconfig);
    command.args(["--kubernetes-names", "scion", "--kubernetes-namespace", "lab", "--agent-homes"]);
    command.arg(folder.path().join("homes/{namespace}/{agent}"));
    let server = Observing::start(command, folder);
    // Until the cluster was listed they are known by their files alone.
    let of_cluster =
        |agents: &[Value]| agents.iter().filter(|agent| agent["runtime"] == "kubernetes").count() == 2;
    let agents = server.wait_for("both of the namespace", of_cluster).await;
    let shown = |agent: &Value| ["namespace", "name", "runtime", "phase"].map(|name| agent[name].clone());
    assert_eq!(
        agents.iter().map(shown).collect::<Vec<_>>(),
        [
            ["lab", "one", "kubernetes", "running"].map(Value::from),
            ["lab", "two", "kubernetes", "running"].map(Value::from),
        ]
    );

    // The file of one cannot be written when its end comes.
    fs::remove_file(&two).unwrap();
    fs::create_dir(&two).unwrap();
    for pod in ["pod-1", "pod-2"] {
        let name = if pod == "pod-1" { "one" } else { "two" };
        cluster.put_labelled("lab", pod, named(name), ended("Failed", 137, "OOMKilled"));
    }
    let both = |agents: &[Value]| agents.iter().all(|agent| agent["phase"] == "error");
    let agents = server.wait_for("both ends", both).await;
    assert_eq!(
        (&agents[0]["container_status"], &agents[0]["warnings"]),
        (&json!("Failed (OOMKilled)"), &json!([]))
    );
    let detail = "OOMKilled: its container ended with exit status 137";
    assert_eq!(file(&one), json!({"phase": "error", "activity": "", "owner": "lab", "detail": detail}));
    // It is shown, logged with path and cause, and counted ...
    let warning = agents[1]["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("lab/two/agent-info.json")
            && warning.contains("is a folder, expected a regular file"),
        "{warning}"
    );
    let said = fs::read_to_string(server.folder.path().join("said")).unwrap();
    let lines: Vec<&str> =
        said.lines().filter(|line| line.contains("agent-info.json not reconciled")).collect();
    assert_eq!(lines.len(), 1, "once, however many passes fail: {said}");
    assert!(lines[0].contains("lab/two/agent-info.json") && lines[0].contains("is a folder"), "{said}");
    let metrics = server.ask("/metrics").await;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("groundcrew_agent_info_failures_total "));
    assert!(counted.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    // ... and done by a later pass, once it can be.
    fs::remove_dir(&two).unwrap();
    fs::write(&two, SAID).unwrap();
    let is_kept = |agents: &[Value]| agents[1]["warnings"] == json!([]) && file(&two) == file(&one);
    server.wait_for("the end in the file", is_kept).await;
}

/// In a mount namespace of its own: what a service account's secret is mounted as in a pod.
const AS_POD: &str = "mount -t tmpfs tmpfs \"$(readlink -f /var/run)\"\n\
    place=/var/run/secrets/kubernetes.io/serviceaccount; mkdir -p $place\n\
    cp \"$1/token-of-pod\" $place/token; cp \"$1/ca.crt\" $place; printf lab >$place/namespace\n\
    shift; exec \"$@\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_the_cluster_observes_all_namespaces_by_its_service_account() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system of its own: run it as root"
    );
    let cluster = Cluster::start(Quirk::None).await;
    cluster.expect_selector("app.kubernetes.io/name=groundcrew-agent");
    let labels = json!({"app.kubernetes.io/name": "groundcrew-agent", "groundcrew.dev/agent": "n1",
        "groundcrew.dev/run": "r-1"});
    cluster.put_labelled("lab", "job-1", labels.clone(), runs());
    cluster.put_labelled("elsewhere", "job-2", labels, ended("Succeeded", 0, "Completed"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token-of-pod"), TOKEN).unwrap();
    fs::write(folder.path().join("ca.crt"), &cluster.certificate).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-e", "-c", AS_POD, "sh"]).arg(folder.path());
    command.arg(env!("CARGO_BIN_EXE_groundcrewd")).args(["serve", "--kubernetes", "in-cluster"]);
    command.env("KUBERNETES_SERVICE_HOST", cluster.address.ip().to_string());
    command.env("KUBERNETES_SERVICE_PORT", cluster.address.port().to_string());
    let server = Observing::start(command, folder);
    let agents = server.wait_for("both", |agents| agents.len() == 2).await;
    let shown = |agent: &Value| ["namespace", "name", "run", "phase"].map(|name| agent[name].clone());
    assert_eq!(
        agents.iter().map(shown).collect::<Vec<_>>(),
        [
            ["elsewhere", "n1", "r-1", "stopped"].map(Value::from),
            ["lab", "n1", "r-1", "running"].map(Value::from),
        ]
    );
}
