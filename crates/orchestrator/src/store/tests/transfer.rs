use std::sync::atomic::{AtomicBool, Ordering};

use groundcrew_protocol::ids::{Attempt, PackageName, PackageVersion, RandomId};
use groundcrew_protocol::operator::PackageView;

use super::*;

const NOW: WallMs = WallMs(1_000);

async fn fill(store: &Store, number: u64) {
    let run = run_id(&format!("r-{number}"));
    put(store, &run, &number.to_string(), number.is_multiple_of(2).then_some(5)).await;
    store.logs().append(chunk(&run, 1, 0, &["a line"])).await.unwrap();
    let content = bytes::Bytes::from(format!("output {number}"));
    let artifact = NewArtifact {
        run,
        stage: Stage::Smart,
        attempt: Attempt(1),
        name: "raw".into(),
        sha256: Sha256Hex::of(&content),
        at: NOW,
        content,
    };
    store.put_artifact(artifact).await.unwrap();
}

/// Sees that the store hangs together, and says how many runs it has.
async fn consistent(store: &Store) -> usize {
    let mut runs = 0;
    let mut after = None;
    loop {
        let page = store.runs(None, after.as_ref(), 500).await.unwrap();
        for run in &page.runs {
            runs += 1;
            assert_eq!(store.events(Some(&run.id), 0, 10).await.unwrap().len() as u64, run.version);
            // A run is filled in three steps, and the snapshot may lie between any two.
            store.logs().read(&run.id, None, LogCursor::default(), 10).await.unwrap();
            for artifact in store.artifacts(&run.id).await.unwrap() {
                store.artifact_content(&artifact).await.unwrap();
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return runs,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_writing_comes_back_consistent() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    std::fs::create_dir(data.path().join("tls")).unwrap();
    std::fs::write(data.path().join("tls/certificate.pem"), "a certificate").unwrap();
    for number in 0..20 {
        fill(&store, number).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            let mut number = 20;
            while !stop.load(Ordering::Relaxed) {
                fill(&store, number).await;
                number += 1;
            }
            number
        }
    });
    let target = elsewhere.path().join("backup");
    let made = backup(data.path(), &target, NOW).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    assert_eq!(made.generation, Generation(1));
    assert!(matches!(backup(data.path(), &target, NOW).await, Err(BackupError::TargetExists(_))));
    let inside = data.path().join("backup");
    assert!(matches!(backup(data.path(), &inside, NOW).await, Err(BackupError::TargetInside(_))));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "nothing half is left");

    let new = elsewhere.path().join("data");
    let restored = restore(&target, &new, false, NOW).await.unwrap();
    assert_eq!((restored.generation, &restored.moved_aside), (Generation(2), &None));
    assert_eq!(std::fs::read_to_string(new.join("tls/certificate.pem")).unwrap(), "a certificate");
    let again = open(&new).await;
    assert_eq!(again.generation(), Generation(2));
    let runs = consistent(&again).await;
    assert!((20..=written as usize).contains(&runs), "{runs} of {written}");
    assert_eq!(again.runs_restored().await.unwrap(), restored.runs);
    assert_eq!(again.runs_going(None, 500).await.unwrap().len(), restored.runs.len());

    // A run is told once, and events of the new generation come after all of the old.
    let told = restored.runs[0].clone();
    let row = RunWrite { tells_restored: true, ..write(&told, "\"told\"", None) };
    let landed = again.change_run(told.clone(), move |_| Ok::<_, ()>((row, ()))).await.unwrap().unwrap();
    assert!(landed.1[0].id > store.last_event().await.unwrap());
    assert!(!again.runs_restored().await.unwrap().contains(&told));
}

#[tokio::test]
async fn a_restore_over_something_needs_force_and_nobody_serving() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    fill(&store, 1).await;
    let target = elsewhere.path().join("backup");
    backup(data.path(), &target, NOW).await.unwrap();
    fill(&store, 3).await;
    let locked = restore(&target, data.path(), true, NOW).await.unwrap_err();
    assert!(matches!(locked, RestoreError::Open(OpenError::Locked { .. })), "{locked:?}");
    store.close().await.unwrap();
    let refused = restore(&target, data.path(), false, NOW).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty(_)), "{refused:?}");

    let first = restore(&target, data.path(), true, NOW).await.unwrap();
    assert_eq!(first.generation, Generation(2));
    let aside = first.moved_aside.unwrap();
    assert!(aside.join(DATABASE_FILE).is_file() && aside.join("logs/1.seg").is_file());
    // The same backup once more: its own generation is 1, and 2 has been given out.
    let second = restore(&target, data.path(), true, NOW).await.unwrap();
    assert_eq!(second.generation, Generation(3));
    let store = open(data.path()).await;
    assert_eq!(consistent(&store).await, 1);
    // What was moved aside is no part of the next backup.
    let next = backup(data.path(), &elsewhere.path().join("next"), NOW).await.unwrap();
    assert_eq!(next.files, 3);
}

#[tokio::test]
async fn a_restore_that_was_cut_short_is_said_and_gives_no_generation_twice() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    fill(&store, 1).await;
    let target = elsewhere.path().join("backup");
    backup(data.path(), &target, NOW).await.unwrap();
    store.close().await.unwrap();
    for generation in 2..=3 {
        let restored = restore(&target, data.path(), true, NOW).await.unwrap();
        assert_eq!(restored.generation, Generation(generation));
    }
    // Killed when the old store was aside, and the new one not in yet.
    let aside = data.path().join("replaced-9999");
    std::fs::create_dir(&aside).unwrap();
    for name in ["groundcrew.db", "logs", "artifacts"] {
        std::fs::rename(data.path().join(name), aside.join(name)).unwrap();
    }
    let refused = Store::open(data.path(), StoreOptions::default()).await.err().unwrap();
    assert!(matches!(&refused, OpenError::Missing { beside, .. } if *beside == aside), "{refused:?}");
    assert!(!data.path().join(DATABASE_FILE).exists(), "a fresh store took its place");
    // Nothing is in its way, so it needs no force. The backup's own generation is 1.
    let again = restore(&target, data.path(), false, NOW).await.unwrap();
    assert_eq!((again.generation, again.moved_aside), (Generation(4), None));
    assert_eq!(consistent(&open(data.path()).await).await, 1);
    assert!(aside.join(DATABASE_FILE).is_file(), "what was moved aside stays until somebody removes it");
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    fill(&store, 1).await;
    store.close().await.unwrap();
    let target = elsewhere.path().join("backup");
    backup(data.path(), &target, NOW).await.unwrap();
    for name in ["groundcrew.db", "logs/1.seg", "manifest.json"] {
        let path = target.join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut garbled = whole.clone();
        let middle = garbled.len() / 2;
        garbled[middle] ^= 1;
        for bad in [Some(&garbled[..]), Some(&whole[..whole.len() - 1]), None] {
            match bad {
                Some(bad) => std::fs::write(&path, bad).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let failed = restore(&target, data.path(), true, NOW).await.unwrap_err();
            assert!(matches!(failed, RestoreError::Damaged { .. }), "{name}: {failed:?}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    let manifest = std::fs::read_to_string(target.join("manifest.json")).unwrap();
    std::fs::write(target.join("manifest.json"), manifest.replace("logs/1.seg", "../1.seg")).unwrap();
    let failed = restore(&target, data.path(), true, NOW).await.unwrap_err();
    assert!(failed.to_string().contains("leads out"), "{failed}");
    assert_eq!(consistent(&open(data.path()).await).await, 1);
    assert!(std::fs::read_dir(data.path()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !restore::is_leftover(&name)
    }));
}

async fn put_package(store: &Store, number: u8) -> (PackageName, PackageVersion) {
    let (name, version) = (format!("p{number}"), "1.0.0");
    let (name, version): (PackageName, PackageVersion) = (name.parse().unwrap(), version.parse().unwrap());
    let mut upload = store.begin_package(RandomId::from_bytes([number; 16])).await.unwrap();
    upload.write(&[number; 1000]).unwrap();
    let view = PackageView {
        name: name.clone(),
        version: version.clone(),
        sha256: upload.sha256(),
        bytes: 1000,
        unpacked_bytes: 1000,
        at: NOW,
        by: "test".into(),
    };
    store.put_package(upload, view, noted("put_package")).await.unwrap();
    (name, version)
}

fn noted(action: &str) -> NewAudit {
    NewAudit { at: NOW, actor: "test".into(), action: action.into(), run: None, text: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_packages_are_deleted_has_every_package_that_it_names() {
    const PACKAGES: u8 = 100;
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    let mut packages = Vec::new();
    for number in 0..PACKAGES {
        packages.push(put_package(&store, number).await);
    }
    let deleting = tokio::spawn({
        let store = store.clone();
        async move {
            // From the other end than they are copied from.
            for (name, version) in packages.into_iter().rev() {
                assert!(store.delete_package(&name, &version, noted("delete_package")).await.unwrap());
            }
        }
    });
    let mut number = 0;
    let left = loop {
        number += 1;
        let ended = deleting.is_finished();
        let target = elsewhere.path().join(format!("backup{number}"));
        backup(data.path(), &target, NOW).await.unwrap();
        let new = elsewhere.path().join(format!("data{number}"));
        restore(&target, &new, false, NOW).await.unwrap();
        let again = open(&new).await;
        let named = again.packages(None, 500).await.unwrap();
        for package in &named {
            let file = again.open_package(&package.sha256).await.unwrap();
            assert_eq!(file.map(|(_file, bytes)| bytes), Some(1000), "{}", package.name);
        }
        again.close().await.unwrap();
        if ended {
            break named.len();
        }
    };
    deleting.await.unwrap();
    assert_eq!(left, 0);
}

/// A run had not ended in the snapshot; it ended, and its package was deleted, before that was copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_has_no_run_that_needs_a_package_which_it_lacks() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    let run = run_id("r-1");
    let (name, version) = put_package(&store, 1).await;
    let doc = format!("\"uses {}\"", Sha256Hex::of(&[1; 1000]));
    put(&store, &run, &doc, None).await;
    store.logs().append(chunk(&run, 1, 0, &["a line"])).await.unwrap();
    // The segment is copied before the packages. One that waits to be written to holds the copying up, once.
    let (segment, aside) = (data.path().join("logs/1.seg"), data.path().join("logs/aside"));
    std::fs::rename(&segment, &aside).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &segment,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let target = elsewhere.path().join("backup");
    let making = tokio::spawn({
        let (data, target) = (data.path().to_owned(), target.clone());
        async move { backup(&data, &target, NOW).await }
    });
    let held = segment.clone();
    let opening = move || std::fs::File::options().write(true).open(held).unwrap();
    let mut holding = tokio::task::spawn_blocking(opening).await.unwrap();
    put(&store, &run, &doc, Some(5)).await;
    assert!(store.delete_package(&name, &version, noted("delete_package")).await.unwrap());
    let content = std::fs::read(&aside).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    std::io::Write::write_all(&mut holding, &content).unwrap();
    drop(holding);
    making.await.unwrap().unwrap();

    let new = elsewhere.path().join("data");
    let restored = restore(&target, &new, false, NOW).await.unwrap();
    assert_eq!(restored.runs, [], "a run that goes on has lost its package");
    let again = open(&new).await;
    assert_eq!(consistent(&again).await, 1);
    assert_eq!(again.packages(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_package_that_has_lost_its_file_makes_a_backup_fail_by_name() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(data.path()).await;
    put_package(&store, 1).await;
    let sum = Sha256Hex::of(&[1; 1000]);
    std::fs::remove_file(data.path().join("packages").join(sum.as_str())).unwrap();
    let target = elsewhere.path().join("backup");
    let failed = crate::causes::chain(&backup(data.path(), &target, NOW).await.unwrap_err());
    assert!(failed.contains(sum.as_str()) && failed.contains("No such file"), "{failed}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing half is left");
}
