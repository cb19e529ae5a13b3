//! A cluster that is slow, has forgotten, or says nothing more: what there is comes to be known all the same.

use std::time::Duration;

use groundcrew_orchestrator::kubernetes::observe::Limits;
use groundcrew_orchestrator::task;

use crate::cluster::{Quirk, ended, runs};
use crate::kubernetes::{Observed, STUCK};

/// One more than a page of the observer's has, and a few.
const TWO_PAGES: usize = 503;

/// Nothing tells that a task has said something: it is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A time that passes for sure, and soon.
const SOON: Duration = Duration::from_secs(1);

fn name(number: usize) -> String {
    format!("pod-{number:04}")
}

/// Waits until the observer has told of itself what is wanted.
async fn wait_for_word(observed: &Observed, wanted: &str) {
    let waits = async {
        while !observed.bench.app.tasks.views().iter().any(|task| format!("{task:?}").contains(wanted)) {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    let came = tokio::time::timeout(STUCK, waits).await;
    assert!(came.is_ok(), "{wanted}: {:?}", observed.bench.app.tasks.views());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_from_the_last_bookmark_where_all_before_is_forgotten() {
    let observed = Observed::start(Quirk::None, None, |cluster| cluster.put("a", runs())).await;
    observed.wait_for("the list", &[("a", "running", "Running")]).await;
    observed.cluster.watched_times(1).await;
    observed.cluster.bookmark();
    observed.cluster.forget();
    observed.cluster.end_watches();
    observed.cluster.watched_times(2).await;
    observed.cluster.put("a", ended("Failed", 1, "Error"));
    observed.wait_for("the end", &[("a", "error", "Failed (Error)")]).await;
    assert_eq!(observed.cluster.asked().0, 1, "from the bookmark on nothing was forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_come_slowly_are_one_list() {
    let observed = Observed::start(Quirk::None, None, |cluster| {
        cluster.let_pages(1);
        (0..TWO_PAGES).for_each(|number| cluster.put(&name(number), runs()));
    })
    .await;
    observed.cluster.asked_for_pages(2).await;
    task::agents::pass(observed.bench.app.clone()).await.unwrap();
    assert!(observed.agents().await.is_empty(), "a part of a list says nothing of who is not in it");
    // What happens meanwhile the list does not show, and the watch tells.
    observed.cluster.put(&name(0), ended("Failed", 1, "Error"));
    observed.cluster.delete(&name(TWO_PAGES - 1));
    observed.cluster.let_pages(usize::MAX);
    let (first, last) = (name(0), name(TWO_PAGES - 1));
    observed
        .wait_for_those("the end", |agents| {
            // Whether a pass found it before it was deleted is chance.
            agents.get(&first).is_some_and(|first| first.1 == "Failed (Error)")
                && agents.get(&last).is_none_or(|last| last.1 == "Deleted")
                && agents.len() >= TWO_PAGES - 1
        })
        .await;
    assert_eq!(observed.cluster.asked().0, 1, "lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_gone_on_with_is_begun_anew() {
    let observed = Observed::start(Quirk::PagesExpire, None, |cluster| {
        (0..TWO_PAGES).for_each(|number| cluster.put(&name(number), runs()));
    })
    .await;
    observed.wait_for_those("the list", |agents| agents.len() == TWO_PAGES).await;
    assert_eq!(observed.cluster.asked().0, 2, "lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_answered_is_given_up_with_a_word_and_made_again() {
    let limits = Limits { call: SOON, ..Limits::default() };
    let observed = Observed::start_with(limits, Quirk::Waits, None, |cluster| cluster.put("a", runs())).await;
    wait_for_word(&observed, "listing pods: no answer within 1 s").await;
    observed.cluster.open();
    observed.wait_for("the list", &[("a", "running", "Running")]).await;
    // So is one that would watch.
    observed.cluster.watched_times(1).await;
    observed.cluster.let_watch(false);
    observed.cluster.end_watches();
    wait_for_word(&observed, "watching pods: no answer within 1 s").await;
    observed.cluster.put("a", ended("Failed", 1, "Error"));
    observed.cluster.let_watch(true);
    observed.wait_for("the end", &[("a", "error", "Failed (Error)")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_connection_is_dead_without_a_word_is_noticed() {
    let limits = Limits { silence: SOON, ..Limits::default() };
    let observed = Observed::start_with(limits, Quirk::None, None, |cluster| cluster.put("a", runs())).await;
    observed.wait_for("the list", &[("a", "running", "Running")]).await;
    observed.cluster.watched_times(1).await;
    observed.cluster.fall_silent();
    observed.cluster.put("a", ended("Failed", 1, "Error"));
    observed.wait_for("the end", &[("a", "error", "Failed (Error)")]).await;
}

#[test]
fn a_dead_connection_is_noticed_within_a_minute() {
    let limits = Limits::default();
    // A watch that is well has been ended by the cluster before that, or has told something.
    assert!(limits.silence > limits.watch && limits.silence < Duration::from_secs(60), "{limits:?}");
    assert_eq!(limits.watch.subsec_nanos(), 0, "a cluster is asked in whole seconds");
}
