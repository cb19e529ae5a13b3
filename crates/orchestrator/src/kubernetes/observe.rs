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
/// Everything is listed anew after this, whatever the watch says.
const LIST_EVERY: Duration = Duration::from_secs(600);
/// The status of what has expired.
const GONE: u16 = 410;
/// Pauses between tries grow from the first of these to the second.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A watch that ended in order before this has hardly been one: the next does not follow at once.
const WATCH_MIN: Duration = Duration::from_secs(1);

/// How long the cluster is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the answer to one call. A page of 500 pods is a few megabytes.
    pub call: Duration,
    /// How long the cluster is asked to keep a watch open, in whole seconds; it then ends it in order.
    pub watch: Duration,
    /// Silence of a watch after which its connection counts as dead: it should have been ended before.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        // Bookmarks come each minute at most, and no cluster owes any; the end of a watch is what a connection that is
        // alive is known by. One more request in that time is nothing beside the leases that each node renews.
        Limits { call: seconds(30), watch: seconds(40), silence: seconds(50) }
    }
}

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
            // Something on the way ends what is idle.
            ObserveError::Cut { lasted } if *lasted >= WATCH_MIN => PAUSE_MIN,
            ObserveError::Kubeconfig { .. }
            | ObserveError::InCluster(_)
            | ObserveError::Call { .. }
            | ObserveError::Late { .. }
            | ObserveError::Silent { .. }
            | ObserveError::Cut { .. }
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
    #[error("{doing}: no answer within {} s", after.as_secs())]
    Late {
        /// What was being done.
        doing: &'static str,
        /// For how long.
        after: Duration,
    },
    /// A watch said nothing for longer than it was to be open: its connection is dead.
    #[error("watching pods: not a word for {} s", after.as_secs())]
    Silent {
        /// For how long.
        after: Duration,
    },
    /// There are more pods than are taken.
    #[error(
        "{PODS_MAX} pods and more match {selector:?}, expected fewer: choose a narrower selector or one namespace"
    )]
    TooMany {
        /// The selector.
        selector: String,
    },
    /// Twice a watch ended before it should, and told nothing: what should come by it is listed instead.
    #[error("watching pods: twice it ended with nothing told, now after {} ms", lasted.as_millis())]
    Cut {
        /// After what time.
        lasted: Duration,
    },
    /// The cluster cannot go on from where the list or the watch stood.
    #[error("the cluster has forgotten what is gone on from: {0}")]
    Expired(String),
}

fn call(doing: &'static str) -> impl FnOnce(kube::Error) -> ObserveError {
    move |source| match source {
        // It has forgotten what the call goes on from, be it a watch's version or a list's next page.
        kube::Error::Api(status) if status.code == GONE => {
            ObserveError::Expired(format!("{} ({})", status.message, status.code))
        }
        source => ObserveError::Call { doing, source: Box::new(source) },
    }
}

/// An observer of a cluster's pods.
pub struct Observer {
    pods: Api<Pod>,
    names: Names,
    limits: Limits,
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
        Ok(Observer { pods, names: cluster.names.clone(), limits: Limits::default() })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Observer {
        Observer { limits, ..self }
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
        let mut was_mute = false;
        while Instant::now() < until {
            let began = Instant::now();
            let Ok(watched) = timeout_at(until, self.watch(app, &mut version, pauses)).await else { break };
            let is_mute = !watched? && began.elapsed() < self.limits.watch;
            if is_mute && was_mute {
                return Err(ObserveError::Cut { lasted: began.elapsed() });
            }
            was_mute = is_mute;
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
            let page = self.within(DOING, self.pods.list(&params)).await?;
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

    /// Waits for the answer to a call.
    async fn within<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ObserveError> {
        let after = self.limits.call;
        let answer = timeout(after, answer).await.map_err(|_late| ObserveError::Late { doing, after })?;
        answer.map_err(call(doing))
    }

    /// Watches from `version` on, and moves it along, until that ends. Whether it told anything: one that a proxy has cut
    /// looks as one that has ended in order.
    async fn watch(
        &self,
        app: &App,
        version: &mut String,
        pauses: &mut Pauses,
    ) -> Result<bool, ObserveError> {
        const DOING: &str = "watching pods";
        let watch_s = u32::try_from(self.limits.watch.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(&self.names.selector).timeout(watch_s);
        let events = self.within(DOING, self.pods.watch(&params, version)).await?;
        pin_mut!(events);
        let mut has_told = false;
        loop {
            let after = self.limits.silence;
            let next = timeout(after, events.next()).await;
            let Some(event) = next.map_err(|_late| ObserveError::Silent { after })? else {
                return Ok(has_told);
            };
            has_told = true;
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
        let late = || ObserveError::Late { doing: "listing pods", after: Duration::from_secs(1) };
        let mut pauses = Pauses::new();
        let grown: Vec<u128> = (0..8).map(|_| pauses.after(&late()).as_millis()).collect();
        assert_eq!(grown, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        pauses.went_well();
        assert_eq!(pauses.after(&late()), PAUSE_MIN * 2);
        let cut = |lasted| ObserveError::Cut { lasted };
        assert_eq!(pauses.after(&cut(Duration::ZERO)), PAUSE_MIN * 4);
        assert_eq!(pauses.after(&cut(WATCH_MIN)), PAUSE_MIN);
        assert_eq!(pauses.after(&cut(Duration::ZERO)), PAUSE_MIN * 2);
        assert_eq!(pauses.after(&ObserveError::Expired(String::new())), PAUSE_MIN);
    }

    #[test]
    fn a_watch_that_is_ended_at_once_is_not_opened_again_at_once() {
        assert_eq!(Pauses::after_watch(Duration::ZERO), PAUSE_MIN);
        assert_eq!(Pauses::after_watch(WATCH_MIN), Duration::ZERO);
    }
}
