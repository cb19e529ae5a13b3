//! What the store promises beyond its rows: how commits reach the disk, that a store of any schema that was ever shipped
//! is brought up to date with all that it holds, and that a close takes nothing back.

use groundcrew_protocol::ids::Attempt;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::super::open::{MIGRATOR, SCHEMA, meta_number, writing};
use super::overlap::{change, commit_on_its_way};
use super::*;

/// A SIGKILL cannot tell `FULL` from `NORMAL`; a power cut can.
#[tokio::test]
async fn each_commit_is_synced_to_a_write_ahead_log() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let asked = store.inner.writer.small(|connection| {
        Box::pin(async move {
            let journal: String =
                sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
            let synchronous: i64 =
                sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
            Ok((journal, synchronous))
        })
    });
    // 2 is FULL (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    assert_eq!(asked.await.unwrap(), ("wal".to_owned(), 2));
}

/// A store as a version with `schema` left it, made by the steps that this version shipped and filled by plain SQL.
async fn left_by(schema: u64, data: &Path) {
    let file = data.join(DATABASE_FILE);
    let options = writing(&file).create_if_missing(true).pragma("application_id", 0x4743_7264.to_string());
    let mut connection = options.connect().await.unwrap();
    let steps = MIGRATOR.iter().take(usize::try_from(schema).unwrap()).cloned().collect();
    Migrator::with_migrations(steps).run(&mut connection).await.unwrap();
    // The second step was shipped without its number.
    let told = if schema == 2 { 1 } else { schema };
    assert_eq!(meta_number(&mut connection, &file, "schema").await.unwrap(), told);
    fill(&mut connection).await;
    connection.close().await.unwrap();
}

async fn fill(connection: &mut SqliteConnection) {
    let request =
        r#"{"claim":1,"made_under":1,"stage":"CPUStress","attempt":1,"passed":true,"summary":"fine"}"#;
    let doc = zstd::bulk::compress(b"\"a\"", 0).unwrap();
    for statement in [
        "UPDATE meta SET value = '3' WHERE key = 'generation'",
        "UPDATE meta SET value = '90000' WHERE key = 'listened_ms'",
        "INSERT INTO tokens (name, sha256, created) VALUES ('ann', ?2, 4)",
        "INSERT INTO runs (id, version, node, profile, state, created, updated, boot_token, doc)
         VALUES ('r-1', 7, 'node-1', 'demo', 'InventoryCheck', 1000, 2000, ?2, ?1)",
        "INSERT INTO events (id, run, at, kind, actor, text, state)
         VALUES (41, 'r-1', 5, 'test', 'agent', 'something', 'InventoryCheck')",
        "INSERT INTO audit (at, actor, action, run, text) VALUES (7, 'ada', 'run_create', 'r-1', '')",
        "INSERT INTO results (run, stage, attempt, kind, claim, made_under, at, sha256, request)
         VALUES ('r-1', 'CPUStress', 1, 'first', 1, 1, 3, ?2, ?3)",
    ] {
        let bound = sqlx::query(statement).bind(&doc).bind(Sha256Hex::of(b"ann").as_str()).bind(request);
        assert_eq!(bound.execute(&mut *connection).await.unwrap().rows_affected(), 1, "{statement}");
    }
}

#[tokio::test]
async fn a_store_of_any_schema_that_was_shipped_is_brought_up_to_date_with_its_rows() {
    for schema in 1..=SCHEMA {
        let data = tempfile::tempdir().unwrap();
        left_by(schema, data.path()).await;
        let store = open(data.path()).await;
        assert_eq!((store.generation().0, store.listened_at_open_ms()), (3, 90_000), "schema {schema}");
        let run = run_id("r-1");
        let RunLookup::Found(found) = store.run(&run).await.unwrap() else { panic!("of schema {schema}") };
        assert_eq!((found.doc.json(), found.version), ("\"a\"", 7), "schema {schema}");
        assert_eq!(store.tokens().await.unwrap()[0].name, "ann");
        assert_eq!(store.audit_rows(u64::MAX, 10).await.unwrap()[0].audit.action, "run_create");
        let results = store.results(&run).await.unwrap();
        let request = results[0].request.as_ref().unwrap();
        assert_eq!((results.len(), results[0].attempt, request.summary.as_str()), (1, Attempt(1), "fine"));
        // It is written to as any other, and numbers go on from where they stood.
        put(&store, &run, "\"b\"", None).await;
        let events = store.events(Some(&run), 0, 10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [41, 42], "schema {schema}");
        store.close().await.unwrap();
        let file = data.path().join(DATABASE_FILE);
        let mut connection = writing(&file).connect().await.unwrap();
        assert_eq!(meta_number(&mut connection, &file, "schema").await.unwrap(), SCHEMA);
    }
}

#[tokio::test]
async fn what_was_handed_in_before_a_close_lands_and_nothing_after_it() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    let go_on = commit_on_its_way(&store).await;
    let (shown, landed) = change(&store, &run, "1");
    assert_eq!(shown.await.unwrap().as_deref(), Some("0"));
    let closed = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    let_all_hand_in().await;
    assert!(!landed.is_finished() && !closed.is_finished());
    go_on.send(()).unwrap();
    landed.await.unwrap();
    closed.await.unwrap().unwrap();
    let later = store.change_run(run.clone(), |_| Err::<(RunWrite, ()), _>(())).await;
    assert!(matches!(later, Err(StoreError::Closed)), "{later:?}");
    assert_eq!(doc(&open(data.path()).await, &run).await.as_deref(), Some("1"));
}
