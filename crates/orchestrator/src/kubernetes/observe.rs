//! Keeps the table of pods as the cluster has it: lists them all in pages, watches from there, and lists again where the
//! watch cannot go on, and now and then in any case.
//!
//! What an event says is only ever the next state of one pod; an event that is missed, doubled or out of order is
//! mended by the next list. It reads, and asks for nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::decide::{self, Names};
use crate::agents::PodSeen;
use crate::api::app::App;
use crate::causes;
use crate::live::clock::wall_now;

/// Its name among the tasks.
const TASK: &str = "kubernetes";
/// Pods in one page of a list.
const PAGE: u32 = 500;
/// Pods that are taken: twice as many as one orchestrator is measured with agents.
const PODS_MAX: usize = 20_000;
/// Over one call. A page of 500 pods is a few megabytes.
const CALL_MAX: Duration = Duration::from_secs(30);
/// How long the cluster is asked to keep a watch open; it then ends it in order.
const WATCH_S: u32 = 240;
/// Silence of a watch after which its connection counts as dead: it should have been ended long before.
const WATCH_MAX: Duration = Duration::from_secs(WATCH_S as u64 + 20);
/// Everything is listed anew after this, whatever the watch says.
const LIST_EVERY: Duration = Duration::from_secs(600);
/// Pauses between tries grow from the first of these to the second.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A watch that ended in order before this has hardly been one: the next does not follow at once.
const WATCH_MIN: Duration = Duration::from_secs(1);

/// How long to wait before the next try. No clock: a pure function of what happened.
#[derive(Debug)]
struct Pauses {
    last: Duration,
}

impl Pauses {
    /// Nothing has failed yet.
    fn new() -> Pauses {
        Pauses { last: PAUSE_MIN }
    }

    /// The cluster was listed, and has told something since: what fails now is not what failed before.
    fn went_well(&mut self) {
        self.last = PAUSE_MIN;
    }

    /// The pause after a failure. What has expired is listed at once; anything else may need time.
    fn after(&mut self, error: &ObserveError) -> Duration {
        self.last = match error {
            ObserveError::Expired(_) => PAUSE_MIN,
            ObserveError::Kubeconfig { .. }
            | ObserveError::InCluster(_)
            | ObserveError::Call { .. }
            | ObserveError::Late { .. }
            | ObserveError::TooMany { .. } => (self.last * 2).min(PAUSE_MAX),
        };
        self.last
    }

    /// The pause after a watch that the cluster ended in order.
    fn after_watch(lasted: Duration) -> Duration {
        if lasted < WATCH_MIN { PAUSE_MIN } else { Duration::ZERO }
    }
}

/// How the cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By the service account of the pod that this server runs in.
    InCluster,
    /// By the current context of a kubeconfig.
    Kubeconfig(PathBuf),
}

/// Which pods are watched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How it is reached.
    pub access: Access,
    /// The one namespace that is watched; absent: all.
    pub namespace: Option<String>,
    /// How pods of agents are known.
    pub names: Names,
}

/// Why pods cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kubeconfig cannot be used.
    #[error("reading the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<kube::config::KubeconfigError>,
    },
    /// This is no pod with a service account.
    #[error("finding the service account of this pod")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The cluster refused, or could not be asked.
    #[error("{doing}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// It did not answer in time.
    #[error("{doing}: no answer within {} s", CALL_MAX.as_secs())]
    Late {
        /// What was being done.
        doing: &'static str,
    },
    /// There are more pods than are taken.
    #[error(
        "{PODS_MAX} pods and more match {selector:?}, expected fewer: choose a narrower selector or one namespace"
    )]
    TooMany {
        /// The selector.
        selector: String,
    },
    /// The cluster cannot go on from where the watch stood.
    #[error("the watch cannot go on: {0}")]
    Expired(String),
}

fn call(doing: &'static str) -> impl FnOnce(kube::Error) -> ObserveError {
    move |source| ObserveError::Call { doing, source: Box::new(source) }
}

/// An observer of a cluster's pods.
pub struct Observer {
    pods: Api<Pod>,
    names: Names,
}

impl Observer {
    /// Reads how the cluster is reached. It need not be there yet.
    ///
    /// # Errors
    /// Where the settings cannot be used.
    pub async fn new(cluster: &Cluster) -> Result<Observer, ObserveError> {
        let config = match &cluster.access {
            Access::InCluster => {
                Config::incluster().map_err(|source| ObserveError::InCluster(Box::new(source)))?
            }
            Access::Kubeconfig(path) => {
                let bad = |source| ObserveError::Kubeconfig { path: path.clone(), source: Box::new(source) };
                let kubeconfig = Kubeconfig::read_from(path).map_err(bad)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(bad)?
            }
        };
        let client = Client::try_from(config).map_err(call("preparing calls to the cluster"))?;
        let pods = match &cluster.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Ok(Observer { pods, names: cluster.names.clone() })
    }

    /// Keeps the table up to date until told to stop.
    pub async fn run(self, app: Arc<App>, stop: CancellationToken) {
        let mut pauses = Pauses::new();
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.follow(&app, &mut pauses) => outcome,
            };
            let pause = match outcome {
                Ok(()) => PAUSE_MIN,
                Err(error) => {
                    let text = causes::chain(&error);
                    tracing::warn!(error = text, "pods are not watched");
                    app.tasks.note(TASK, Err(text));
                    pauses.after(&error)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Lists everything, then watches until it is time to list again.
    async fn follow(&self, app: &App, pauses: &mut Pauses) -> Result<(), ObserveError> {
        let (pods, mut version) = self.list().await?;
        let count = pods.len();
        app.agents.with_pods(|table| table.replace(pods));
        app.agents.wake.notify_one();
        app.tasks.note(TASK, Ok(format!("{count} pods")));
        let until = Instant::now() + LIST_EVERY;
        while Instant::now() < until {
            let began = Instant::now();
            let Ok(watched) = timeout_at(until, self.watch(app, &mut version, pauses)).await else { break };
            watched?;
            let count = app.agents.with_pods(|table| table.count()).unwrap_or_default();
            app.tasks.note(TASK, Ok(format!("{count} pods")));
            tokio::time::sleep(Pauses::after_watch(began.elapsed())).await;
        }
        pauses.went_well();
        Ok(())
    }

    async fn list(&self) -> Result<(Vec<(Option<u64>, PodSeen)>, String), ObserveError> {
        const DOING: &str = "listing pods";
        let mut params = ListParams::default().labels(&self.names.selector).limit(PAGE);
        let mut listed = Vec::new();
        loop {
            let page = timeout(CALL_MAX, self.pods.list(&params)).await;
            let page = page.map_err(|_late| ObserveError::Late { doing: DOING })?.map_err(call(DOING))?;
            listed.extend(page.items.iter().filter_map(|pod| self.seen(pod)));
            if listed.len() > PODS_MAX {
                return Err(ObserveError::TooMany { selector: self.names.selector.clone() });
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok((listed, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Watches from `version` on, and moves it along, until the cluster ends that in order.
    async fn watch(&self, app: &App, version: &mut String, pauses: &mut Pauses) -> Result<(), ObserveError> {
        const DOING: &str = "watching pods";
        let params = WatchParams::default().labels(&self.names.selector).timeout(WATCH_S);
        let opened = timeout(CALL_MAX, self.pods.watch(&params, version)).await;
        let events = opened.map_err(|_late| ObserveError::Late { doing: DOING })?.map_err(call(DOING))?;
        pin_mut!(events);
        loop {
            let next = timeout(WATCH_MAX, events.next()).await;
            let Some(event) = next.map_err(|_late| ObserveError::Late { doing: DOING })? else {
                return Ok(());
            };
            match event.map_err(call(DOING))? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    *version = pod.metadata.resource_version.clone().unwrap_or_default();
                    let Some((number, seen)) = self.seen(&pod) else { continue };
                    app.agents.with_pods(|table| table.put(number, seen));
                }
                WatchEvent::Deleted(pod) => {
                    *version = pod.metadata.resource_version.clone().unwrap_or_default();
                    let Some((number, seen)) = self.seen(&pod) else { continue };
                    app.agents.with_pods(|table| table.remove(number, seen));
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    pauses.went_well();
                    continue;
                }
                WatchEvent::Error(status) => {
                    return Err(ObserveError::Expired(format!("{} ({})", status.message, status.code)));
                }
            }
            pauses.went_well();
            app.agents.wake.notify_one();
        }
    }

    fn seen(&self, pod: &Pod) -> Option<(Option<u64>, PodSeen)> {
        let seen = decide::seen(pod, &self.names, wall_now())?;
        let version = pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
        Some((version, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_goes_well_and_begin_anew_once_it_did() {
        let late = || ObserveError::Late { doing: "listing pods" };
        let mut pauses = Pauses::new();
        let grown: Vec<u128> = (0..8).map(|_| pauses.after(&late()).as_millis()).collect();
        assert_eq!(grown, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        pauses.went_well();
        assert_eq!(pauses.after(&late()), PAUSE_MIN * 2);
        assert_eq!(pauses.after(&ObserveError::Expired(String::new())), PAUSE_MIN);
    }

    #[test]
    fn a_watch_that_is_ended_at_once_is_not_opened_again_at_once() {
        assert_eq!(Pauses::after_watch(Duration::ZERO), PAUSE_MIN);
        assert_eq!(Pauses::after_watch(WATCH_MIN), Duration::ZERO);
    }
}
