//! The pods of agents, as a cluster shows them: whatever it does on the way, the same state in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use groundcrew_orchestrator::kubernetes::decide::Names;
use groundcrew_orchestrator::kubernetes::observe::{self, Access, Limits, Observer};
use groundcrew_orchestrator::task;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bench::Bench;
use crate::cluster::{Cluster, Quirk, ended, runs};

/// What has not come after this never comes.
pub(crate) const STUCK: Duration = Duration::from_secs(60);

/// An orchestrator that observes a cluster.
pub(crate) struct Observed {
    pub bench: Bench,
    pub cluster: Cluster,
    _stop: DropGuard,
}

impl Observed {
    /// Starts observing. `before`: what is in the cluster then; `homes`: where homes lie that it shares.
    pub async fn start(quirk: Quirk, homes: Option<String>, before: impl FnOnce(&Cluster)) -> Observed {
        Observed::start_with(Limits::default(), quirk, homes, before).await
    }

    /// The same, with other limits.
    pub async fn start_with(
        limits: Limits,
        quirk: Quirk,
        homes: Option<String>,
        before: impl FnOnce(&Cluster),
    ) -> Observed {
        let cluster = Cluster::start(quirk).await;
        before(&cluster);
        let settings = observe::Cluster {
            access: Access::Kubeconfig(cluster.kubeconfig.clone()),
            namespace: None,
            names: Names {
                selector: "app=agent".into(),
                agent: "groundcrew.dev/agent".into(),
                run: "groundcrew.dev/run".into(),
                container: "agent".into(),
            },
        };
        let observer = Observer::new(&settings).await.unwrap().with_limits(limits);
        let bench = Bench::with(|options| {
            options.kubernetes = Some(settings);
            options.agent_homes = homes.map(|homes| homes.parse().unwrap());
        })
        .await;
        let stop = CancellationToken::new();
        tokio::spawn(observer.run(bench.app.clone(), stop.clone()));
        Observed { bench, cluster, _stop: stop.drop_guard() }
    }

    /// Phase and container status of every agent.
    pub async fn agents(&self) -> BTreeMap<String, (String, String)> {
        let list = self.bench.order("GET", "/api/v1/agents", Value::Null).await.expect(200);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = list["agents"].as_array().unwrap().iter();
        rows.map(|row| (text(&row["name"]), (text(&row["phase"]), text(&row["container_status"])))).collect()
    }

    /// Does a pass whenever the observer says that there is news, until all is as expected.
    pub async fn wait_for(&self, what: &str, expected: &[(&str, &str, &str)]) {
        self.wait_for_all_but(None, what, expected).await;
    }

    async fn wait_for_all_but(&self, except: Option<&str>, what: &str, expected: &[(&str, &str, &str)]) {
        let expected: BTreeMap<String, (String, String)> = expected
            .iter()
            .map(|(name, phase, status)| ((*name).to_owned(), ((*phase).to_owned(), (*status).to_owned())))
            .collect();
        let is_so = |found: &BTreeMap<String, (String, String)>| {
            let mut found = found.clone();
            found.retain(|name, _| Some(name.as_str()) != except);
            found == expected
        };
        self.wait_for_those(&format!("{what}: expected {expected:?}"), is_so).await;
    }

    /// The same, until phase and container status of all agents are as wanted.
    pub async fn wait_for_those(
        &self,
        what: &str,
        wanted: impl Fn(&BTreeMap<String, (String, String)>) -> bool,
    ) {
        let waits = async {
            loop {
                task::agents::pass(self.bench.app.clone()).await.unwrap();
                if wanted(&self.agents().await) {
                    return;
                }
                self.bench.app.agents.wake.notified().await;
            }
        };
        if tokio::time::timeout(STUCK, waits).await.is_err() {
            let tasks = self.bench.app.tasks.views();
            panic!("{what}: found {:?}; {tasks:?}", self.agents().await);
        }
    }
}

const RUNNING: [(&str, &str, &str); 4] = [
    ("a", "running", "Running"),
    ("b", "running", "Running"),
    ("c", "running", "Running"),
    ("d", "running", "Running"),
];
const AFTERWARDS: [(&str, &str, &str); 5] = [
    ("a", "stopped", "Succeeded (Completed)"),
    ("b", "error", "Failed (OOMKilled)"),
    ("c", "running", "Running"),
    ("d", "error", "Deleted"),
    ("e", "running", "Running"),
];

/// Everything that can happen to a pod, one after the other.
fn happen(cluster: &Cluster) {
    cluster.put("a", ended("Succeeded", 0, "Completed"));
    cluster.put("b", ended("Failed", 137, "OOMKilled"));
    cluster.put("c", runs());
    cluster.delete("d");
    cluster.put("e", runs());
    cluster.put("f", ended("Failed", 1, "Error"));
    cluster.delete("f");
}

/// Whether a watch cannot go on where something has happened.
fn relists(quirk: Quirk) -> bool {
    matches!(quirk, Quirk::Expires | Quirk::ExpiresAtOnce | Quirk::CutsAtOnce)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_cluster_does_on_the_way_the_end_is_the_same() {
    for quirk in [
        Quirk::None,
        Quirk::Bookmarks,
        Quirk::Expires,
        Quirk::ExpiresAtOnce,
        Quirk::Cuts,
        Quirk::CutsAtOnce,
        Quirk::Doubles,
        Quirk::Reorders,
        Quirk::Dribbles,
    ] {
        let observed = Observed::start(quirk, None, |cluster| {
            for name in ["a", "b", "c", "d"] {
                cluster.put(name, runs());
            }
        })
        .await;
        observed.wait_for(&format!("{quirk:?}: the list"), &RUNNING).await;
        happen(&observed.cluster);
        // The last of them was there for a moment: where the watch was lost, nobody may have seen it. Where it was not,
        // it is known how it ended.
        let relisted = relists(quirk);
        let brief = [("f", "error", "Failed (Error)")];
        // A watch that is cut somewhere goes on from there, as far as it comes.
        let may_be_missed = relisted || quirk == Quirk::Cuts;
        let expected = if may_be_missed { AFTERWARDS.to_vec() } else { [&AFTERWARDS[..], &brief].concat() };
        observed
            .wait_for_all_but(may_be_missed.then_some("f"), &format!("{quirk:?}: the end"), &expected)
            .await;
        let (lists, _, watches) = observed.cluster.asked();
        assert!(lists > usize::from(relisted) && watches > 0, "{quirk:?}: {lists} lists, {watches} watches");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_between_list_and_watch_has_ended_all_the_same() {
    for quirk in [
        Quirk::None,
        Quirk::Bookmarks,
        Quirk::Expires,
        Quirk::ExpiresAtOnce,
        Quirk::Cuts,
        Quirk::CutsAtOnce,
        Quirk::Doubles,
        Quirk::Reorders,
    ] {
        let observed = Observed::start(quirk, None, |cluster| {
            cluster.let_watch(false);
            for name in ["a", "b", "c"] {
                cluster.put(name, runs());
            }
        })
        .await;
        // The list was given, and the watch that goes on from there was asked for.
        observed.cluster.asked_to_watch().await;
        observed.wait_for(&format!("{quirk:?}: the list"), &RUNNING[..3]).await;
        observed.cluster.delete("a");
        observed.cluster.put("b", ended("Failed", 1, "Error"));
        observed.cluster.delete("b");
        observed.cluster.let_watch(true);
        // How one ended is known where the watch still tells it; where it cannot go on, that the pod is no more.
        let relisted = relists(quirk);
        let is_known = |status: &str| match quirk {
            // As far as the watch comes.
            Quirk::Cuts => ["Deleted", "Failed (Error)"].contains(&status),
            _ if relisted => status == "Deleted",
            _ => status == "Failed (Error)",
        };
        observed
            .wait_for_those(&format!("{quirk:?}: the end"), |agents| {
                let [a, b, c] = ["a", "b", "c"].map(|name| (&*agents[name].0, &*agents[name].1));
                (a, b.0, c) == (("error", "Deleted"), "error", ("running", "Running")) && is_known(b.1)
            })
            .await;
        let lists = observed.cluster.asked().0;
        assert!(lists == 1 + usize::from(relisted) || quirk == Quirk::Cuts, "{quirk:?}: {lists} lists");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_cluster_changes_nothing_until_it_answers() {
    let observed = Observed::start(Quirk::Waits, None, |cluster| cluster.put("a", runs())).await;
    task::agents::pass(observed.bench.app.clone()).await.unwrap();
    assert!(observed.agents().await.is_empty(), "nothing was listed yet");
    observed.cluster.put("a", ended("Failed", 1, "Error"));
    observed.cluster.open();
    observed.wait_for("the end", &[("a", "error", "Failed (Error)")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_and_a_node_that_is_lost_show_with_their_reason() {
    let observed = Observed::start(Quirk::None, None, |cluster| {
        let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let container =
            json!({"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        let mut waits = json!({"phase": "Pending", "containerStatuses": [container]});
        waits["containerStatuses"][0]["state"] = pull;
        cluster.put("a", waits);
        let mut lost = runs();
        (lost["reason"], lost["message"]) = ("NodeLost".into(), "Node is unresponsive".into());
        cluster.put("b", lost);
    })
    .await;
    let shown = [("a", "starting", "Pending (ImagePullBackOff)"), ("b", "", "Running (NodeLost)")];
    observed.wait_for("the list", &shown).await;
    let list = observed.bench.order("GET", "/api/v1/agents", Value::Null).await.expect(200);
    let agents = list["agents"].as_array().unwrap();
    assert_eq!(agents[0]["detail"], "ImagePullBackOff: no such image");
    let lost = "its node does not answer: NodeLost: Node is unresponsive";
    assert_eq!((&agents[1]["detail"], &agents[1]["warnings"]), (&json!(lost), &json!([lost])));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_spoke_before_its_node_was_lost_shows_that_and_ends_for_it() {
    let observed = Observed::start(Quirk::None, None, |cluster| cluster.put("a", runs())).await;
    let mut agent = observed.bench.make_agent("n1").await;
    agent.runtime = json!({"source": "kubernetes", "id": "uid-a"});
    agent.restart();
    agent.claim(&observed.bench).await.expect(200);
    agent.beat(&observed.bench, json!({"activity": "all is well"})).await.expect(200);
    observed.wait_for("the list", &[("a", "running", "Running")]).await;
    let detail = async || {
        let list = observed.bench.order("GET", "/api/v1/agents", Value::Null).await.expect(200);
        list["agents"][0]["detail"].clone()
    };
    assert_eq!(detail().await, "all is well");
    let mut lost = runs();
    lost["conditions"] =
        json!([{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]);
    observed.cluster.put("a", lost);
    observed.wait_for("the node", &[("a", "running", "Running (NodeLost)")]).await;
    assert_eq!(detail().await, "its node does not answer: NodeLost");
    observed.cluster.delete("a");
    observed.wait_for("the end", &[("a", "error", "Deleted (NodeLost)")]).await;
    assert_eq!(detail().await, "NodeLost: its pod was deleted before it ended");
    let view =
        observed.bench.order("GET", &format!("/api/v1/runs/{}", agent.run), Value::Null).await.expect(200);
    assert_eq!(view["wait"]["for"], "a successor of the agent; its pod ended: error (NodeLost)");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_comes_into_the_file_where_the_file_system_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab/a/agent-info.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let said = r#"{"name":"a","phase":"running","activity":"thinking","runtime_id":"uid-a","mine":[1]}"#;
    std::fs::write(&path, said).unwrap();
    let homes = format!("{}/{{namespace}}/{{agent}}", folder.path().display());
    let observed = Observed::start(Quirk::None, Some(homes), |cluster| cluster.put("a", runs())).await;
    observed.wait_for("the file's own word", &[("a", "running", "Running")]).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), said, "nothing is to be changed");
    observed.cluster.put("a", ended("Failed", 137, "OOMKilled"));
    observed.wait_for("the end", &[("a", "error", "Failed (OOMKilled)")]).await;
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let expected = json!({"name": "a", "phase": "error", "activity": "", "runtime_id": "uid-a", "mine": [1],
        "detail": "OOMKilled: its container ended with exit status 137"});
    assert_eq!(file, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_agent_is_a_pod_learns_of_its_end_once() {
    let observed = Observed::start(Quirk::None, None, |cluster| cluster.put("a", runs())).await;
    let mut agent = observed.bench.make_agent("n1").await;
    agent.runtime = json!({"source": "kubernetes", "id": "uid-a"});
    agent.restart();
    agent.claim(&observed.bench).await.expect(200);
    agent.beat(&observed.bench, json!({})).await.expect(200);
    observed.wait_for("the list", &[("a", "running", "Running")]).await;
    observed.cluster.put("a", ended("Failed", 137, "OOMKilled"));
    observed.wait_for("the end", &[("a", "error", "Failed (OOMKilled)")]).await;
    let view =
        observed.bench.order("GET", &format!("/api/v1/runs/{}", agent.run), Value::Null).await.expect(200);
    let waits = view["wait"]["for"].as_str().unwrap();
    assert_eq!(waits, "a successor of the agent; its pod ended: error (OOMKilled), exit status 137");
    let told = task::agents::pass(observed.bench.app.clone()).await.unwrap();
    assert!(told.contains(" 0 runs are told"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_pods_come_in_pages_and_one_pass_takes_them() {
    const PODS: usize = 5_000;
    let observed = Observed::start(Quirk::None, None, |cluster| {
        for number in 0..PODS {
            cluster.put(&format!("pod-{number:04}"), runs());
        }
    })
    .await;
    let listed = async {
        while observed.bench.app.agents.with_pods(|pods| pods.count()) != Some(PODS) {
            observed.bench.app.agents.wake.notified().await;
        }
    };
    tokio::time::timeout(STUCK, listed).await.expect("the list comes");
    let began = std::time::Instant::now();
    let said = task::agents::pass(observed.bench.app.clone()).await.unwrap();
    // A figure for whoever reads the test's output; how fast this machine is fails nothing.
    eprintln!("one pass over {PODS} pods took {} ms: {said}", began.elapsed().as_millis());
    assert!(said.starts_with("5000 agents"), "{said}");
    assert_eq!(observed.agents().await.len(), PODS);
    assert_eq!(observed.cluster.asked().1, 10, "pages of 500");
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_keeps_the_server_from_starting_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    let names =
        Names { selector: "a=b".into(), agent: String::new(), run: String::new(), container: String::new() };
    let settings = observe::Cluster { access: Access::Kubeconfig(path.clone()), namespace: None, names };
    let error = Observer::new(&settings).await.err().unwrap();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}
