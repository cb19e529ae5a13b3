//! The manifests in deploy/kubernetes: of kinds that a cluster knows, with no more rights than needed.

use std::path::Path;

use clap::Parser;
use groundcrew_orchestrator::api::{self, Access};
use groundcrew_orchestrator::kubernetes::observe;
use groundcrew_orchestrator::settings::{Arguments, Command, Environment, PORT};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, Service, ServiceAccount};
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

#[test]
fn the_orchestrator_s_pod_has_the_observer_s_account_and_serves_by_its_own_words() {
    let documents = documents("orchestrator.yaml");
    let (service, set): (Service, StatefulSet) = (parsed(&documents[0]), parsed(&documents[1]));
    assert_eq!(documents.len(), 2);
    let account: ServiceAccount = parsed(&self::documents("observer.yaml")[0]);
    let spec = set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    for selector in [spec.selector.match_labels.unwrap(), service.spec.unwrap().selector.unwrap()] {
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{selector:?}");
    }
    assert_eq!(spec.replicas, Some(1), "one process has the data folder");
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.service_account_name, account.metadata.name);
    assert_eq!(set.metadata.namespace, account.metadata.namespace);
    // Requests under way have 10 s.
    assert!(pod.termination_grace_period_seconds.unwrap() >= 20);
    let [container] = &pod.containers[..] else { panic!("one container") };
    expect_serving(container);
    for probe in [&container.startup_probe, &container.readiness_probe, &container.liveness_probe] {
        let asked = probe.as_ref().unwrap().http_get.as_ref().unwrap();
        let route = api::routes().into_iter().find(|route| Some(route.path) == asked.path.as_deref());
        assert_eq!(route.unwrap().access, Access::Open, "a kubelet has no token");
        assert_eq!(asked.scheme.as_deref(), Some("HTTPS"));
    }
}

/// Its arguments are ones that the server takes, and what they name lies in its volumes.
fn expect_serving(container: &Container) {
    let arguments = Arguments::try_parse_from(container.command.as_ref().unwrap()).unwrap();
    let Command::Serve(serve) = arguments.command else { panic!("{arguments:?}") };
    assert_eq!(serve.listen.port(), PORT);
    assert_eq!(container.ports.as_ref().unwrap()[0].container_port, i32::from(PORT));
    let data = serve.data.folder(&Environment::default()).unwrap();
    let key = serve.data.key_file(&Environment::default(), |_| false).unwrap();
    assert!(!key.starts_with(&data), "a backup would hold the key beside what it seals");
    let mounts: Vec<_> = container.volume_mounts.iter().flatten().map(|mount| &mount.mount_path).collect();
    for path in [&data, &key, serve.print_token_to.as_ref().unwrap()] {
        assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{} is nowhere kept", path.display());
    }
    assert_eq!(serve.kubernetes.cluster().unwrap().access, observe::Access::InCluster);
}

/// What holds of every pod of an agent.
fn expect_agent(template: &PodTemplateSpec) {
    let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
    assert_eq!(labels["app.kubernetes.io/name"], "groundcrew-agent", "the preset's selector finds it");
    let pod = template.spec.as_ref().unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false), "an agent asks nothing of the cluster");
    let [container] = &pod.containers[..] else { panic!("one container") };
    assert_eq!(container.name, "agent");
    let command = container.startup_probe.as_ref().unwrap().exec.as_ref().unwrap().command.as_ref().unwrap();
    assert_eq!(command[..2], ["groundcrew", "status"]);
    // It would kill an agent that is well and whose file is old, as where its disk is full.
    assert!(container.liveness_probe.is_none(), "{:?}", container.liveness_probe);
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
