//! What is decided while a commit is on its way to the disk.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::*;

/// Hands in what keeps its commit on its way until the sender is used; the receiver tells that it is on its way.
fn hand_in_a_wait(store: &Store) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (go_on, told) = oneshot::channel();
    let (begun, has_begun) = oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let work = store.inner.writer.small(move |_connection| {
            Box::pin(async move {
                begun.send(()).unwrap();
                told.await.unwrap();
                Ok(())
            })
        });
        work.await.unwrap();
    });
    (go_on, has_begun)
}

/// A commit that is on its way until the sender is used: what is handed in meanwhile belongs to the next one.
pub(super) async fn commit_on_its_way(store: &Store) -> oneshot::Sender<()> {
    let (go_on, has_begun) = hand_in_a_wait(store);
    has_begun.await.unwrap();
    go_on
}

/// Hands in a change that says which document it was shown, the moment it is.
pub(super) fn change(
    store: &Store,
    run: &RunId,
    to: &'static str,
) -> (oneshot::Receiver<Option<String>>, tokio::task::JoinHandle<()>) {
    let (shown, was_shown) = oneshot::channel();
    let (store, run) = (store.clone(), run.clone());
    let landed = tokio::spawn(async move {
        let id = run.clone();
        let decide = move |stored: Option<&StoredRun>| {
            shown.send(stored.map(|stored| stored.doc.json().to_owned())).unwrap();
            Ok::<_, ()>((write(&id, to, None), ()))
        };
        store.change_run(run, decide).await.unwrap().unwrap();
    });
    (was_shown, landed)
}

#[tokio::test]
async fn a_run_that_is_known_is_decided_on_while_the_commit_before_is_on_its_way() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    let go_on = commit_on_its_way(&store).await;
    let (shown, landed) = change(&store, &run, "1");
    assert_eq!(shown.await.unwrap().as_deref(), Some("0"));
    assert!(!landed.is_finished());
    assert_eq!(doc(&store, &run).await.as_deref(), Some("0"), "it was decided, and must not have landed");
    go_on.send(()).unwrap();
    landed.await.unwrap();
    assert_eq!(doc(&store, &run).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_run_that_is_on_its_way_is_decided_on_once_it_has_landed() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (run, calm) = (run_id("r-1"), run_id("r-2"));
    put(&store, &run, "0", None).await;
    put(&store, &calm, "0", None).await;
    let first = commit_on_its_way(&store).await;
    let (shown, landed) = change(&store, &run, "1");
    assert_eq!(shown.await.unwrap().as_deref(), Some("0"));
    // The second commit has that change, and then waits.
    let (second, is_on_its_way) = hand_in_a_wait(&store);
    let_all_hand_in().await;
    first.send(()).unwrap();
    is_on_its_way.await.unwrap();

    let (shown_later, landed_later) = change(&store, &run, "2");
    let_all_hand_in().await;
    let (shown_calm, landed_calm) = change(&store, &calm, "1");
    // The later one of the two was decided on: the writer has come past the earlier one, and held it back.
    assert_eq!(shown_calm.await.unwrap().as_deref(), Some("0"));
    let too_early = AtomicBool::new(true);
    let watch = async {
        let shown = shown_later.await.unwrap();
        assert!(!too_early.load(Ordering::SeqCst), "decided on {shown:?} before that had landed");
        shown
    };
    let let_go = async {
        let_all_hand_in().await;
        too_early.store(false, Ordering::SeqCst);
        second.send(()).unwrap();
    };
    let (shown_later, ()) = tokio::join!(watch, let_go);
    assert_eq!(shown_later.as_deref(), Some("1"));
    for task in [landed, landed_later, landed_calm] {
        task.await.unwrap();
    }
    assert_eq!(doc(&store, &run).await.as_deref(), Some("2"));
    assert_eq!(doc(&store, &calm).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_run_that_is_being_deleted_is_not_decided_on_from_memory() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", Some(7)).await;
    let go_on = commit_on_its_way(&store).await;
    let deleted = tokio::spawn({
        let (store, run) = (store.clone(), run.clone());
        async move { store.delete_run(&run, audit("delete_run")).await.unwrap() }
    });
    let_all_hand_in().await;
    go_on.send(()).unwrap();
    assert!(deleted.await.unwrap());
    let shown = store.change_run(run.clone(), |stored| Err::<(RunWrite, ()), _>(stored.is_some())).await;
    assert!(!shown.unwrap().unwrap_err(), "a deleted run was shown");
}
