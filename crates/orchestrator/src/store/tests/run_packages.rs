//! Which runs use a package, also in a store of an older version.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;

/// A schema that did not keep which packages a run uses.
const BEFORE: i64 = 5;

fn package(name: &str, version: &str) -> PackageKey {
    (name.parse().unwrap(), version.parse().unwrap())
}

/// Puts a run that uses these packages, and has ended or not.
async fn put_using(store: &Store, run: &str, packages: &[&PackageKey], ended: Option<i64>) {
    let run = run_id(run);
    let mut row = write(&run, "{}", ended);
    row.doc.as_mut().unwrap().1.packages = packages.iter().map(|package| (*package).clone()).collect();
    store.change_run(run, move |_stored| Ok::<_, ()>((row, ()))).await.unwrap().unwrap();
}

/// The ids of the runs that use a package, as many as are named of them, and how many there are.
async fn users(store: &Store, (name, version): &PackageKey, named_max: u32) -> (Vec<String>, u64) {
    let users = store.package_users(name, version, named_max).await.unwrap();
    (users.named.iter().map(|run| run.to_string()).collect(), users.count)
}

fn of(runs: &[&str], count: u64) -> (Vec<String>, u64) {
    (runs.iter().map(|run| (*run).to_owned()).collect(), count)
}

#[tokio::test]
async fn a_run_uses_its_packages_from_its_making_until_it_ends() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (one, other) = (package("tuning", "1.0.0"), package("tuning", "1.0.1"));
    assert_eq!(users(&store, &one, 5).await, of(&[], 0));
    put_using(&store, "r-1", &[&one, &other, &one], None).await;
    put_using(&store, "r-2", &[&one], None).await;
    put_using(&store, "r-3", &[&one], Some(9)).await;
    assert_eq!(users(&store, &one, 5).await, of(&["r-1", "r-2"], 2));
    assert_eq!(users(&store, &one, 1).await, of(&["r-1"], 2));
    assert_eq!(users(&store, &other, 5).await, of(&["r-1"], 1));
    assert_eq!(users(&store, &package("tunin", "1.0.0"), 5).await, of(&[], 0));
    // A change that ends nothing, by either statement.
    put_using(&store, "r-1", &[&one, &other, &one], None).await;
    let mut claimed = write(&run_id("r-2"), "{}", None);
    let columns = &mut claimed.doc.as_mut().unwrap().1;
    (columns.packages, columns.run_token) = (vec![one.clone()], Some(Sha256Hex::of(b"token")));
    store.change_run(run_id("r-2"), move |_stored| Ok::<_, ()>((claimed, ()))).await.unwrap().unwrap();
    assert_eq!(users(&store, &one, 5).await, of(&["r-1", "r-2"], 2));
    put_using(&store, "r-1", &[&one, &other, &one], Some(9)).await;
    assert_eq!(users(&store, &one, 5).await, of(&["r-2"], 1));
    assert_eq!(users(&store, &other, 5).await, of(&[], 0));
    assert!(store.knows_package_users().await.unwrap());
    store.close().await.unwrap();
    let again = open(data.path()).await;
    assert_eq!(users(&again, &one, 5).await, of(&["r-2"], 1));
}

/// A store as an older version made it, with a run that goes on or without.
async fn older(data: &Path, with_run: bool) {
    let file = data.join(DATABASE_FILE);
    let ours = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let ours = ours.pragma("application_id", open::APPLICATION_ID.to_string());
    let mut connection = ours.connect().await.unwrap();
    open::MIGRATOR.run_to(BEFORE, &mut connection).await.unwrap();
    if with_run {
        sqlx::query(
            "INSERT INTO runs (id, version, node, profile, state, created, updated, boot_token, doc) \
             VALUES ('r-1', 1, 'node-1', 'demo', 'vetting:inventory', 1, 1, 'x', ?)",
        )
        .bind(text::pack("{}"))
        .execute(&mut connection)
        .await
        .unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_older_store_learns_which_packages_its_runs_use_and_one_without_runs_has_nothing_to_learn() {
    let data = tempfile::tempdir().unwrap();
    older(data.path(), false).await;
    let store = open(data.path()).await;
    assert!(store.knows_package_users().await.unwrap());
    store.close().await.unwrap();

    let data = tempfile::tempdir().unwrap();
    older(data.path(), true).await;
    let store = open(data.path()).await;
    assert_eq!(doc(&store, &run_id("r-1")).await.as_deref(), Some("{}"));
    assert!(!store.knows_package_users().await.unwrap());
    let used = package("tuning", "1.0.0");
    // Where one could not be read, the others are known, and the whole is not.
    store.learn_package_users(vec![(run_id("r-1"), used.clone())], false).await.unwrap();
    assert_eq!(users(&store, &used, 5).await, of(&["r-1"], 1));
    assert!(!store.knows_package_users().await.unwrap());
    store.learn_package_users(vec![(run_id("r-1"), used.clone())], true).await.unwrap();
    assert_eq!(users(&store, &used, 5).await, of(&["r-1"], 1));
    store.close().await.unwrap();
    let again = open(data.path()).await;
    assert!(again.knows_package_users().await.unwrap());
    assert_eq!(users(&again, &used, 5).await, of(&["r-1"], 1));
}
