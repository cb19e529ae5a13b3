use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

/// Every file under the folder with its content, apart from the lock, which opening signs.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.insert(path.clone(), Vec::new());
                folders.push(path);
            } else if path.file_name().unwrap() != "lock" {
                all.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// A closed store with enough in it that its tables have pages of their own.
async fn filled() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    for number in 0..50 {
        let run = run_id(&format!("r-{number}"));
        put(&store, &run, &format!("\"{}\"", "x".repeat(2_000)), None).await;
        store.logs().append(chunk(&run, 1, 0, &["a line"])).await.unwrap();
    }
    store.close().await.unwrap();
    data
}

/// Opens, and sees that it is refused as damage of that file, with nothing changed.
async fn refused(data: &Path) -> String {
    let before = content(data);
    let error = match Store::open(data, StoreOptions::default()).await {
        Ok(_opened) => panic!("a damaged store was opened"),
        Err(error) => error,
    };
    assert_eq!(content(data), before, "after: {error}");
    let text = error.to_string();
    assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Missing { .. }), "{error:?}");
    assert!(text.contains("groundcrew.db") && text.contains("groundcrewd restore"), "{text}");
    text
}

#[tokio::test]
async fn a_garbled_header_is_refused() {
    let data = filled().await;
    let file = data.path().join(DATABASE_FILE);
    let whole = std::fs::read(&file).unwrap();
    for (at, what) in [(0, "header"), (16, "page"), (68, "application id")] {
        let mut garbled = whole.clone();
        garbled[at] ^= 0x5a;
        std::fs::write(&file, &garbled).unwrap();
        assert!(refused(data.path()).await.contains(what));
    }
    std::fs::write(&file, &whole).unwrap();
    open(data.path()).await;
}

#[tokio::test]
async fn a_garbled_page_in_the_middle_is_refused() {
    let data = filled().await;
    let file = data.path().join(DATABASE_FILE);
    let whole = std::fs::read(&file).unwrap();
    let pages = whole.len() / 4096;
    let mut refusals = 0;
    for page in 1..pages {
        let mut garbled = whole.clone();
        garbled[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&file, &garbled).unwrap();
        refused(data.path()).await;
        refusals += 1;
    }
    assert!(refusals > 30, "the store had only {pages} pages");
}

#[tokio::test]
async fn a_truncated_database_is_refused() {
    let data = filled().await;
    let file = data.path().join(DATABASE_FILE);
    let whole = std::fs::read(&file).unwrap();
    for (bytes, what) in
        [(50, "fewer than"), (4096, "cut off"), (whole.len() - 4096, "cut off"), (whole.len() - 1, "cut off")]
    {
        std::fs::write(&file, &whole[..bytes]).unwrap();
        assert!(refused(data.path()).await.contains(what));
    }
}

#[tokio::test]
async fn an_empty_file_a_folder_and_text_are_refused() {
    let data = filled().await;
    let file = data.path().join(DATABASE_FILE);
    std::fs::write(&file, b"").unwrap();
    assert!(refused(data.path()).await.contains("empty"));
    // A write-ahead log beside it does not make an empty file ours.
    std::fs::write(data.path().join("groundcrew.db-wal"), vec![1; 5_000]).unwrap();
    assert!(refused(data.path()).await.contains("empty"));
    std::fs::write(&file, "not a database ".repeat(1_000)).unwrap();
    refused(data.path()).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(refused(data.path()).await.contains("not a regular file"));
}

#[tokio::test]
async fn a_database_that_is_gone_is_not_made_anew_over_what_belongs_to_it() {
    let data = filled().await;
    std::fs::remove_file(data.path().join(DATABASE_FILE)).unwrap();
    assert!(refused(data.path()).await.contains("logs"));
    let bare = tempfile::tempdir().unwrap();
    std::fs::write(bare.path().join("groundcrew.db-wal"), vec![1; 5_000]).unwrap();
    assert!(refused(bare.path()).await.contains("-wal"));
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_begun_again() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("groundcrew.db.new"), b"half").unwrap();
    let store = open(data.path()).await;
    assert_eq!(store.generation(), Generation(1));
    assert!(!data.path().join("groundcrew.db.new").exists());
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let data = filled().await;
    let file = data.path().join(DATABASE_FILE);
    {
        use sqlx::{ConnectOptions, Connection};
        let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        sqlx::query("UPDATE meta SET value = '99' WHERE key = 'schema'").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    }
    let before = content(data.path());
    let error = Store::open(data.path(), StoreOptions::default()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error:?}");
    assert_eq!(content(data.path()), before);
}

#[test]
fn every_step_of_the_schema_is_counted() {
    assert_eq!(open::MIGRATOR.iter().count() as u64, open::SCHEMA);
}

#[tokio::test]
async fn a_second_server_is_refused_until_the_first_has_closed() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let error = Store::open(data.path(), StoreOptions::default()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    store.close().await.unwrap();
    open(data.path()).await;
}

/// What a power cut leaves: of the commit that was on its way any part is in the write-ahead log, or rubbish in its place.
#[tokio::test]
async fn a_torn_write_ahead_log_loses_its_last_commit_alone_and_that_whole() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (kept, torn) = (run_id("r-kept"), run_id("r-torn"));
    let wal = data.path().join(format!("{DATABASE_FILE}-wal"));
    put(&store, &kept, "\"kept\"", None).await;
    let acknowledged = std::fs::read(&wal).unwrap().len();
    put(&store, &torn, "\"torn\"", None).await;
    let whole = std::fs::read(&wal).unwrap();
    let database = std::fs::read(data.path().join(DATABASE_FILE)).unwrap();
    assert!(acknowledged < whole.len(), "a commit is appended");
    for cut in (acknowledged..whole.len()).step_by(2_000).chain([whole.len() - 1, whole.len()]) {
        for rubbish in [0, 500] {
            let mut write_ahead = whole[..cut].to_vec();
            write_ahead.resize(cut + rubbish, 0xa5);
            let crashed = tempfile::tempdir().unwrap();
            std::fs::write(crashed.path().join(DATABASE_FILE), &database).unwrap();
            std::fs::write(crashed.path().join(format!("{DATABASE_FILE}-wal")), write_ahead).unwrap();
            let store = open(crashed.path()).await;
            assert_eq!(doc(&store, &kept).await.as_deref(), Some("\"kept\""), "cut at {cut}");
            let found = doc(&store, &torn).await;
            let events = store.events(Some(&torn), 0, 10).await.unwrap().len();
            assert_eq!(events, usize::from(found.is_some()), "cut at {cut}: the document without its event");
            assert!(found.is_none() || cut > acknowledged, "cut at {cut}: none of it was left");
            assert!(found.is_some() || cut < whole.len(), "all of it was left");
            put(&store, &torn, "\"again\"", None).await;
            store.close().await.unwrap();
        }
    }
}
