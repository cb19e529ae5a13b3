//! The manifests in deploy/kubernetes: of kinds that a cluster knows, with no more rights than needed.

use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn documents(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("\n---\n").map(str::to_owned).collect()
}

/// Of this kind, and of nothing that this kind does not know: what a cluster would drop or refuse fails here.
fn parsed<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let read: T = serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let written: Value = serde_yaml_ng::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
    read
}

#[test]
fn the_observer_may_look_at_pods_and_nothing_else() {
    let documents = documents("observer.yaml");
    let account: ServiceAccount = parsed(&documents[0]);
    let role: ClusterRole = parsed(&documents[1]);
    let binding: ClusterRoleBinding = parsed(&documents[2]);
    assert_eq!(documents.len(), 3);
    let [rule] = &role.rules.unwrap()[..] else { panic!("one rule") };
    assert_eq!(rule.verbs, ["get", "list", "watch"]);
    assert_eq!(rule.resources.as_deref(), Some(&["pods".to_owned()][..]));
    assert_eq!(rule.api_groups.as_deref(), Some(&[String::new()][..]));
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(
        (Some(&subject.name), subject.namespace.as_ref()),
        (account.metadata.name.as_ref(), account.metadata.namespace.as_ref())
    );
}

/// What holds of every pod of an agent.
fn expect_agent(template: &PodTemplateSpec) {
    let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
    assert_eq!(labels["app.kubernetes.io/name"], "groundcrew-agent", "the preset's selector finds it");
    let pod = template.spec.as_ref().unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false), "an agent asks nothing of the cluster");
    // Ending a stage takes 10 s, calls 10 s, the last lines 5 s, the last word in its file 7 s.
    assert!(pod.termination_grace_period_seconds.unwrap() > 32);
    let [container] = &pod.containers[..] else { panic!("one container") };
    assert_eq!(container.name, "agent");
    for probe in [&container.startup_probe, &container.liveness_probe] {
        let command = probe.as_ref().unwrap().exec.as_ref().unwrap().command.as_ref().unwrap();
        assert_eq!(command[..2], ["groundcrew", "status"]);
    }
    let uid = container.env.as_ref().unwrap().iter().find(|one| one.name == "GROUNDCREW_POD_UID").unwrap();
    let from = uid.value_from.as_ref().unwrap().field_ref.as_ref().unwrap();
    assert_eq!(from.field_path, "metadata.uid");
}

#[test]
fn the_agent_s_pods_say_who_they_are_and_have_time_to_end() {
    let job: Job = parsed(&documents("agent-job.yaml")[0]);
    let spec = job.spec.unwrap();
    expect_agent(&spec.template);
    assert_eq!(spec.template.spec.unwrap().restart_policy.as_deref(), Some("Never"));
    let daemons: DaemonSet = parsed(&documents("agent-daemonset.yaml")[0]);
    let spec = daemons.spec.unwrap();
    expect_agent(&spec.template);
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    assert!(spec.selector.match_labels.unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
}
