use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::limits;

use super::*;

const DAY_MS: i64 = 86_400_000;

async fn open_keeping(data: &Path, retention: Retention) -> Store {
    Store::open(data, StoreOptions { retention, ..StoreOptions::default() }).await.unwrap()
}

fn artifact(run: &RunId, name: &str, content: &'static [u8]) -> NewArtifact {
    NewArtifact {
        run: run.clone(),
        stage: Stage::Smart,
        attempt: Attempt(1),
        name: name.into(),
        sha256: Sha256Hex::of(content),
        at: WallMs(1),
        content: bytes::Bytes::from_static(content),
    }
}

async fn fill(store: &Store, run: &RunId, ended: Option<i64>) {
    put(store, run, "0", ended).await;
    store.logs().append(chunk(run, 1, 0, &["a line"])).await.unwrap();
    store.append_sensors(batch(run, 0, 1.0)).await.unwrap();
    store.put_artifact(artifact(run, "smart.json", b"{}")).await.unwrap();
}

#[tokio::test]
async fn what_is_past_its_time_goes_and_what_has_not_ended_stays() {
    let data = tempfile::tempdir().unwrap();
    let store = open_keeping(data.path(), Retention::default()).await;
    let (old, recent, going) = (run_id("old"), run_id("recent"), run_id("going"));
    fill(&store, &old, Some(0)).await;
    fill(&store, &recent, Some(300 * DAY_MS)).await;
    fill(&store, &going, None).await;

    let swept = store.sweep(WallMs(200 * DAY_MS)).await.unwrap();
    let expected = Swept { log_chunks: 1, sensor_batches: 1, artifacts: 1, ..Swept::default() };
    assert_eq!(swept, expected);
    let gaps = store.logs().gaps(&old, false).await.unwrap();
    assert!(gaps.len() == 2 && gaps[0].contains("removed by retention"), "{gaps:?}");
    assert!(store.logs().gaps(&going, false).await.unwrap().is_empty());
    // The same content belongs to others too.
    assert_eq!(std::fs::read_dir(data.path().join("artifacts")).unwrap().count(), 1);

    let swept = store.sweep(WallMs(7 * 365 * DAY_MS)).await.unwrap();
    assert_eq!((swept.runs, swept.segments), (2, 0));
    assert_eq!(store.run(&old).await.unwrap(), RunLookup::Gone);
    assert_eq!(store.events(None, 0, 10).await.unwrap().len(), 1);
    let page = store.logs().read(&going, None, LogCursor::default(), 10).await.unwrap();
    assert_eq!(page.lines.len(), 1);
    assert_eq!(store.sensors(&going, Wanted::default()).await.unwrap().0.len(), 1);
    assert_eq!(store.artifacts(&going).await.unwrap().len(), 1);
}

#[tokio::test]
async fn homes_of_agents_that_nobody_has_heard_for_long_are_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let store = open_keeping(data.path(), Retention::default()).await;
    for (home, seen_day) in [(1, 100), (2, 109), (3, 110), (4, 200)] {
        let instance = RandomId::from_bytes([home; 16]);
        store.note_agent(AgentSeen { instance, run: run_id("r"), seen_day, pins: Vec::new() }).await.unwrap();
    }
    store.sweep(WallMs(200 * DAY_MS + 5)).await.unwrap();
    let left = store.agents_since(0).await.unwrap();
    assert_eq!(left.iter().map(|agent| agent.seen_day).collect::<Vec<_>>(), [110, 200]);
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_for_a_while_forgets_no_agent_that_is_away() {
    let data = tempfile::tempdir().unwrap();
    let store = open_keeping(data.path(), Retention::default()).await;
    put(&store, &run_id("going"), "0", None).await;
    let note = async |home: u8, run: &str, seen_day| {
        let instance = RandomId::from_bytes([home; 16]);
        store.note_agent(AgentSeen { instance, run: run_id(run), seen_day, pins: Vec::new() }).await.unwrap();
    };
    let left = async || store.agents_since(0).await.unwrap().len();
    note(1, "gone", 100).await;
    note(2, "going", 100).await;
    // Nobody was heard since.
    store.sweep(WallMs(900 * DAY_MS)).await.unwrap();
    assert_eq!(left().await, 2);
    // Somebody was: only what belongs to no run that goes on is forgotten.
    note(3, "gone", 900).await;
    store.sweep(WallMs(900 * DAY_MS)).await.unwrap();
    let kept = store.agents_since(0).await.unwrap();
    assert_eq!(
        kept.iter().map(|agent| (agent.run.as_str(), agent.seen_day)).collect::<Vec<_>>(),
        [("going", 100), ("gone", 900)]
    );
}

#[tokio::test]
async fn segments_that_nobody_needs_go_as_a_whole_and_appending_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let retention = Retention { logs_age_ms: 10, ..Retention::default() };
    let store = open_keeping(data.path(), retention.clone()).await;
    let run = run_id("ended");
    fill(&store, &run, Some(0)).await;
    store.close().await.unwrap();
    let store = open_keeping(data.path(), retention).await;
    let going = run_id("going");
    fill(&store, &going, None).await;
    assert_eq!(std::fs::read_dir(data.path().join("logs")).unwrap().count(), 2);
    let swept = store.sweep(WallMs(1_000)).await.unwrap();
    assert_eq!((swept.log_chunks, swept.segments), (1, 1));
    assert!(!data.path().join("logs/1.seg").exists());
    put(&store, &going, "1", Some(0)).await;
    // The segment in use goes too, and the next line begins another.
    assert_eq!(store.sweep(WallMs(1_000)).await.unwrap().segments, 1);
    store.logs().append(chunk(&going, 1, 1, &["more"])).await.unwrap();
    assert_eq!(store.logs().tail(&going, None, 5).await.unwrap().lines, [line(Some("CPUStress"), "more")]);
}

#[tokio::test]
async fn over_the_size_the_runs_that_ended_first_lose_their_logs() {
    let data = tempfile::tempdir().unwrap();
    let store = open_keeping(data.path(), Retention { logs_bytes_max: 250, ..Retention::default() }).await;
    let mut going = Vec::new();
    for (name, ended) in [("b", Some(20)), ("a", Some(10)), ("c", None), ("d", Some(30))] {
        let run = run_id(name);
        fill(&store, &run, ended).await;
        going.push(run);
    }
    // A chunk of one short line takes about a hundred bytes.
    let swept = store.sweep(WallMs(100)).await.unwrap();
    assert!((1..=3).contains(&swept.log_chunks), "{swept:?}");
    let left = |name: &str| {
        let (store, run) = (store.clone(), run_id(name));
        async move { store.logs().tail(&run, None, 5).await.unwrap().lines.len() }
    };
    assert_eq!(left("a").await, 0, "it ended first");
    assert_eq!(left("c").await, 1, "it has not ended");
    assert_eq!(store.sweep(WallMs(100)).await.unwrap().log_chunks, 0, "once is enough");
}

#[tokio::test]
async fn artifacts_are_checked_bounded_and_shared() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    assert_eq!(store.put_artifact(artifact(&run, "../x", b"raw")).await.unwrap(), Taken::First);
    assert_eq!(store.put_artifact(artifact(&run, "../x", b"raw")).await.unwrap(), Taken::Repeated);
    assert_eq!(store.put_artifact(artifact(&run, "../x", b"other")).await.unwrap(), Taken::OtherContent);
    let mut lying = artifact(&run, "y", b"raw");
    lying.sha256 = Sha256Hex::of(b"another");
    assert!(matches!(store.put_artifact(lying).await, Err(StoreError::TooMuch(_))));
    assert!(matches!(store.put_artifact(artifact(&run, "", b"raw")).await, Err(StoreError::TooMuch(_))));
    for number in 1..limits::ARTIFACTS_MAX {
        store.put_artifact(artifact(&run, &format!("{number}"), b"raw")).await.unwrap();
    }
    assert!(matches!(store.put_artifact(artifact(&run, "more", b"raw")).await, Err(StoreError::TooMuch(_))));
    let rows = store.artifacts(&run).await.unwrap();
    assert_eq!(rows.len(), limits::ARTIFACTS_MAX);
    assert_eq!(store.artifact_content(&rows[0]).await.unwrap(), b"raw");
    assert_eq!(std::fs::read_dir(data.path().join("artifacts")).unwrap().count(), 1);
}

#[tokio::test]
async fn the_room_on_the_disk_is_asked_of_whom_the_options_say() {
    let data = tempfile::tempdir().unwrap();
    let probe: DiskProbe = Arc::new(|| Ok(DiskSpace { free_bytes: 4, total_bytes: 100 }));
    let options = StoreOptions { free_percent_min: 5.0, disk_probe: Some(probe), ..StoreOptions::default() };
    let store = Store::open(data.path(), options).await.unwrap();
    assert_eq!(store.disk_state(), DiskState::Full(DiskSpace { free_bytes: 4, total_bytes: 100 }));
    // Results are still taken.
    put(&store, &run_id("r-1"), "0", None).await;
}
