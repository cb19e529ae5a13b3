use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::operator::Node;
use groundcrew_protocol::wire::ResultRequest;
use sqlx::ConnectOptions;

use super::*;

/// Set for the child of the kill test: the folder that it writes to.
const CHILD_DATA: &str = "GROUNDCREW_STORE_CHILD";

#[tokio::test]
async fn a_change_is_there_once_it_is_answered_and_after_a_reopening() {
    let data = tempfile::tempdir().unwrap();
    let run = run_id("r-1");
    let store = open(data.path()).await;
    put(&store, &run, "\"a\"", None).await;
    assert_eq!(doc(&store, &run).await.as_deref(), Some("\"a\""));
    put(&store, &run, "\"b\"", None).await;
    store.note_listened(90_000);
    store.close().await.unwrap();
    assert!(matches!(
        store.change_run(run.clone(), |_| Err::<(RunWrite, ()), _>(())).await,
        Err(StoreError::Closed)
    ));
    let store = open(data.path()).await;
    assert_eq!(store.listened_at_open_ms(), 90_000);
    let RunLookup::Found(found) = store.run(&run).await.unwrap() else { panic!("the run is gone") };
    assert_eq!((found.doc.json(), found.version), ("\"b\"", 2));
    let ids: Vec<u64> = store.events(Some(&run), 0, 10).await.unwrap().iter().map(|event| event.id).collect();
    assert_eq!(ids, [1, 2]);
}

/// Keeps the writer busy until the sender is used: what is handed in meanwhile makes one commit.
async fn stall(store: &Store) -> std::sync::mpsc::Sender<()> {
    let (go_on, told) = std::sync::mpsc::channel();
    let (busy, is_busy) = tokio::sync::oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let wait = move |_stored: Option<&StoredRun>| {
            busy.send(()).unwrap();
            told.recv().unwrap();
            Err::<(RunWrite, ()), _>(())
        };
        store.change_run(run_id("stall"), wait).await.unwrap().unwrap_err()
    });
    is_busy.await.unwrap();
    go_on
}

#[tokio::test]
async fn later_decisions_of_one_commit_see_earlier_ones() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    let add = |store: Store, run: RunId| async move {
        let id = run.clone();
        let counted = move |stored: Option<&StoredRun>| {
            let count: u64 = stored.unwrap().doc.json().parse().unwrap();
            Ok::<_, ()>((write(&id, &(count + 1).to_string(), None), count + 1))
        };
        store.change_run(run, counted).await.unwrap().unwrap().0
    };
    let go_on = stall(&store).await;
    let tasks: Vec<_> = (0..100).map(|_| tokio::spawn(add(store.clone(), run.clone()))).collect();
    let_all_hand_in().await;
    go_on.send(()).unwrap();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
    assert_eq!(doc(&store, &run).await.as_deref(), Some("100"));
    assert_eq!(store.events(Some(&run), 0, 1_000).await.unwrap().len(), 101);
}

#[tokio::test]
async fn a_decision_that_panics_or_refuses_harms_no_other() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let go_on = stall(&store).await;
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let run = run_id(&format!("r-{number}"));
                let id = run.clone();
                let decide = move |_stored: Option<&StoredRun>| match number % 3 {
                    0 => panic!("a defect, on purpose"),
                    1 => Err("refused"),
                    _ => Ok((write(&id, "1", None), ())),
                };
                store.change_run(run, decide).await
            })
        })
        .collect();
    let_all_hand_in().await;
    go_on.send(()).unwrap();
    for (number, task) in tasks.into_iter().enumerate() {
        let outcome = task.await.unwrap();
        let run = run_id(&format!("r-{number}"));
        match number % 3 {
            0 => assert!(matches!(outcome, Err(StoreError::Panicked { .. }))),
            1 => assert_eq!(outcome.unwrap().unwrap_err(), "refused"),
            _ => assert!(outcome.unwrap().is_ok()),
        }
        assert_eq!(doc(&store, &run).await.is_some(), number % 3 == 2);
    }
    assert_eq!(store.events(None, 0, 1_000).await.unwrap().len(), 20);
}

/// Changes a run's version behind the store's back, while a decision on it is being made.
fn interfere(data: &Path, run: &RunId) {
    let file = data.join(DATABASE_FILE);
    let run = run.clone();
    let interfering = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            let mut other = options.connect().await.unwrap();
            sqlx::query("UPDATE runs SET version = version + 1 WHERE id = ?")
                .bind(run.as_str())
                .execute(&mut other)
                .await
                .unwrap();
        });
    };
    std::thread::spawn(interfering).join().unwrap();
}

#[tokio::test]
async fn a_change_from_an_old_version_conflicts_and_the_others_of_its_commit_land() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (fought, calm) = (run_id("fought"), run_id("calm"));
    put(&store, &fought, "0", None).await;
    put(&store, &calm, "0", None).await;
    // A store that remembers neither: both are loaded and decided on between two commits, where another process can write.
    store.close().await.unwrap();
    let store = open(data.path()).await;
    let change = |run: &RunId, meddle: bool| {
        let (store, run, folder) = (store.clone(), run.clone(), data.path().to_owned());
        let id = run.clone();
        tokio::spawn(async move {
            let decide = move |_stored: Option<&StoredRun>| {
                if meddle {
                    interfere(&folder, &id);
                }
                Ok::<_, ()>((write(&id, "1", None), ()))
            };
            store.change_run(run, decide).await
        })
    };
    let go_on = stall(&store).await;
    let (first, second) = (change(&fought, true), change(&calm, false));
    let_all_hand_in().await;
    go_on.send(()).unwrap();
    let outcome = first.await.unwrap();
    assert!(matches!(&outcome, Err(StoreError::Conflict { run }) if *run == fought), "{outcome:?}");
    second.await.unwrap().unwrap().unwrap();
    assert_eq!(doc(&store, &fought).await.as_deref(), Some("0"));
    let shown = move |stored: Option<&StoredRun>| Err::<(RunWrite, ()), _>(stored.map(|run| run.version));
    let version = store.change_run(fought.clone(), shown).await.unwrap().unwrap_err();
    assert_eq!(version, Some(2), "what another process wrote was not read");
    assert_eq!(doc(&store, &calm).await.as_deref(), Some("1"));
    assert_eq!(store.events(Some(&fought), 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_write_that_breaks_a_rule_of_the_schema_fails_alone() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let mac: groundcrew_protocol::ids::MacAddress = "52:54:00:00:00:01".parse().unwrap();
    let node = |name: &str, macs: &[_]| Node {
        name: name.parse().unwrap(),
        serial: Some("S1".into()),
        macs: macs.to_vec(),
        labels: Default::default(),
    };
    let one = [mac];
    let (first, second, third) = tokio::join!(
        store.put_node(node("one", &one), audit("put_node")),
        store.put_node(node("two", &one), audit("put_node")),
        store.put_node(node("other", &[]), audit("put_node")),
    );
    first.unwrap();
    assert!(matches!(second, Err(StoreError::Exists(_))));
    third.unwrap();
    let found = store.find_nodes(Some("S1"), &[]).await.unwrap();
    assert_eq!(found.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["one", "other"]);
    assert_eq!(store.audit_rows(u64::MAX, 10).await.unwrap().len(), 2);
}

fn result(kind: ResultKind, summary: &str, claim: u64) -> NewResultRow {
    let request = serde_json::json!({
        "claim": claim, "made_under": 1, "stage": "CPUStress", "attempt": 1, "passed": true, "summary": summary
    });
    let request: ResultRequest = serde_json::from_value(request).unwrap();
    NewResultRow {
        stage: Stage::CpuStress,
        attempt: Attempt(1),
        kind,
        at: WallMs(3),
        request: Some(Box::new(request)),
        judged: None,
    }
}

async fn keep(store: &Store, run: &RunId, row: NewResultRow) -> Result<(), StoreError> {
    let write =
        RunWrite { doc: None, events: vec![], audit: None, results: vec![row], tells_restored: false };
    store.change_run(run.clone(), move |_| Ok::<_, ()>((write, ()))).await.map(|landed| {
        landed.unwrap();
    })
}

#[tokio::test]
async fn the_first_result_stands_and_evidence_is_kept_once_and_bounded() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    keep(&store, &run, result(ResultKind::First, "fine", 1)).await.unwrap();
    assert!(matches!(
        keep(&store, &run, result(ResultKind::First, "other", 1)).await,
        Err(StoreError::Database { .. })
    ));
    // The same again, under a later claim: nothing new.
    keep(&store, &run, result(ResultKind::Repeated, "fine", 2)).await.unwrap();
    assert_eq!(store.evidence(&run).await.unwrap(), (vec![], 0));
    for number in 0..20 {
        keep(&store, &run, result(ResultKind::Late, &format!("late {number}"), 3)).await.unwrap();
        keep(&store, &run, result(ResultKind::Late, "late 0", 4)).await.unwrap();
    }
    let (kept, dropped) = store.evidence(&run).await.unwrap();
    assert_eq!((kept.len() as u32, dropped), (results::EVIDENCE_PER_ATTEMPT_MAX, 4));
    let standing = store.results(&run).await.unwrap();
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].request.as_ref().unwrap().summary, "fine");
    assert_eq!(standing[0].claim, ClaimNumber(1));
}

fn own_verdict(verdict: &str) -> NewResultRow {
    let judged: Judged =
        serde_json::from_value(serde_json::json!({ "verdict": verdict, "checks": [] })).unwrap();
    NewResultRow { request: None, judged: Some(judged), ..result(ResultKind::Own, "", 0) }
}

/// Two columns of text held what is packed into one now.
#[tokio::test]
async fn results_from_before_they_were_packed_are_read_and_judged_anew() {
    let data = tempfile::tempdir().unwrap();
    let run = run_id("r-1");
    let store = open(data.path()).await;
    put(&store, &run, "0", None).await;
    store.close().await.unwrap();
    {
        use sqlx::Connection;
        let file = data.path().join(DATABASE_FILE);
        let mut before = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        for (stage, kind, request, judged) in [
            (
                "Memory",
                "first",
                Some(
                    r#"{"claim":0,"made_under":1,"stage":"Memory","attempt":1,"passed":true,"summary":"old"}"#,
                ),
                r#"{"verdict":"pass","checks":[]}"#,
            ),
            ("CPUStress", "own", None, r#"{"verdict":"pass","checks":[]}"#),
        ] {
            let row = "INSERT INTO results (run, stage, attempt, kind, claim, made_under, at, sha256, request, judged) \
                       VALUES ('r-1', ?, 1, ?, 7, 1, 5, '', ?, ?)";
            sqlx::query(row)
                .bind(stage)
                .bind(kind)
                .bind(request)
                .bind(judged)
                .execute(&mut before)
                .await
                .unwrap();
        }
        before.close().await.unwrap();
    }
    let store = open(data.path()).await;
    let read = store.results(&run).await.unwrap();
    let request = read[0].request.as_ref().unwrap();
    assert_eq!(
        (request.summary.as_str(), request.claim, read[0].claim),
        ("old", ClaimNumber(7), ClaimNumber(7))
    );
    let verdicts = |read: &[StoredResult]| -> Vec<_> {
        read.iter().map(|one| one.judged.as_ref().unwrap().verdict.to_string()).collect()
    };
    assert_eq!(verdicts(&read), ["pass", "pass"]);
    keep(&store, &run, own_verdict("warn")).await.unwrap();
    keep(&store, &run, own_verdict("fail")).await.unwrap();
    let read = store.results(&run).await.unwrap();
    assert_eq!(verdicts(&read), ["pass", "fail"]);
    assert_eq!(read[1].request, None);
}

#[tokio::test]
async fn tokens_are_kept_and_the_last_good_one_stays() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let token = |name: &str| TokenRow {
        name: name.into(),
        sha256: Sha256Hex::of(name.as_bytes()),
        created: WallMs(1),
        revoked: None,
    };
    assert!(store.add_first_token(token("admin"), audit("token")).await.unwrap());
    assert!(!store.add_first_token(token("second"), audit("token")).await.unwrap());
    assert!(matches!(store.revoke_token("admin", audit("revoke")).await, Err(StoreError::InUse(_))));
    store.add_token(token("ada"), audit("token")).await.unwrap();
    assert!(matches!(store.add_token(token("ada"), audit("token")).await, Err(StoreError::Exists(_))));
    assert!(store.revoke_token("admin", audit("revoke")).await.unwrap());
    assert!(!store.revoke_token("admin", audit("revoke")).await.unwrap());
    let revoked: Vec<bool> = store.tokens().await.unwrap().iter().map(|row| row.revoked.is_some()).collect();
    assert_eq!(revoked, [false, true]);
}

#[tokio::test]
async fn a_deleted_run_is_gone_and_its_id_is_never_used_again() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    assert!(matches!(store.delete_run(&run, audit("delete")).await, Err(StoreError::InUse(_))));
    put(&store, &run, "1", Some(50)).await;
    assert!(store.delete_run(&run, audit("delete")).await.unwrap());
    assert!(!store.delete_run(&run, audit("delete")).await.unwrap());
    assert_eq!(store.run(&run).await.unwrap(), RunLookup::Gone);
    assert_eq!(store.run(&run_id("r-2")).await.unwrap(), RunLookup::Never);
    let row = write(&run, "2", None);
    let again = store.change_run(run.clone(), move |_| Ok::<_, ()>((row, ()))).await;
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn runs_are_listed_in_parts_and_found_by_their_tokens() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    for number in 0..7 {
        put(&store, &run_id(&format!("r-{number}")), "0", (number % 2 == 0).then_some(1)).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.runs(Some(&"node-1".parse().unwrap()), after.as_ref(), 3).await.unwrap();
        seen.extend(page.runs.iter().map(|run| run.id.to_string()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["r-6", "r-5", "r-4", "r-3", "r-2", "r-1", "r-0"]);
    let going = store.runs_going(Some(&run_id("r-1")), 10).await.unwrap();
    assert_eq!(going.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["r-3", "r-5"]);
    let owners = store.token_owners(&Sha256Hex::of(b"r-3")).await.unwrap();
    assert_eq!(owners, [TokenOwner { run: run_id("r-3"), kind: TokenKind::Boot }]);
}

/// Not a test of its own: what [`killed_after_acknowledging_nothing_is_lost`] runs as a child.
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(data) = std::env::var(CHILD_DATA) else { return };
    let store = open(Path::new(&data)).await;
    let mut round = 0_u64;
    loop {
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let run = run_id(&format!("r-{round}-{number}"));
                    let row = RunWrite {
                        audit: Some(NewAudit { run: Some(run.clone()), ..audit("make") }),
                        results: vec![result(ResultKind::First, "fine", 1)],
                        ..write(&run, "1", None)
                    };
                    let landed = store.change_run(run.clone(), move |_| Ok::<_, ()>((row, ()))).await;
                    landed.unwrap().unwrap();
                    let lines = store.logs().append(chunk(&run, 1, 0, &["a line"])).await.unwrap();
                    assert_eq!(lines, Taken::First);
                    run
                })
            })
            .collect();
        for task in tasks {
            println!("acknowledged {}", task.await.unwrap());
        }
        round += 1;
    }
}

#[tokio::test]
async fn killed_after_acknowledging_nothing_is_lost() {
    let data = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::writes::child_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_DATA, data.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 200 {
        let said = output.next().expect("the child goes on until it is killed").unwrap();
        if let Some((_before, run)) = said.split_once("acknowledged ") {
            acknowledged.push(run_id(run));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died, and was not read yet.
    for said in output.map_while(Result::ok) {
        if let Some(run) = said.split_once("acknowledged ").and_then(|(_, run)| run.parse().ok()) {
            acknowledged.push(run);
        }
    }
    let store = open(data.path()).await;
    for run in &acknowledged {
        assert_eq!(doc(&store, run).await.as_deref(), Some("1"), "{run} was acknowledged");
        let page = store.logs().read(run, None, LogCursor::default(), 10).await.unwrap();
        assert_eq!(page.lines, [line(Some("CPUStress"), "a line")]);
        assert_eq!(store.logs().append(chunk(run, 1, 0, &["a line"])).await.unwrap(), Taken::Repeated);
    }
    // Of the changes that nobody was told of: each has its run, its event, its audit row and its result, or nothing.
    let runs_named = store.inner.writer.small(|connection| {
        Box::pin(async move {
            let mut named: Vec<Vec<String>> = Vec::new();
            for statement in [
                "SELECT id FROM runs ORDER BY 1",
                "SELECT run FROM events ORDER BY 1",
                "SELECT run FROM audit ORDER BY 1",
                "SELECT run FROM results ORDER BY 1",
            ] {
                named.push(sqlx::query_scalar(statement).fetch_all(&mut *connection).await.unwrap());
            }
            Ok(named)
        })
    });
    let runs_named = runs_named.await.unwrap();
    assert!(runs_named[0].len() >= acknowledged.len());
    for (named, table) in runs_named[1..].iter().zip(["events", "audit", "results"]) {
        assert_eq!(named, &runs_named[0], "{table}");
    }
}
