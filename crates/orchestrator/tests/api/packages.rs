//! Packages that operators store: what is taken, and what is refused and leaves nothing behind.

use std::path::Path;
use std::task::Poll;

use axum::body::Body;
use groundcrew_orchestrator::store::{DiskSpace, StoreOptions};
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::limits::PACKAGE_BYTES_MAX;
use serde_json::{Value, json};

use crate::bench::{Answer, Bench, request};

const PLACE: &str = "/api/v1/packages/tuning/1.0.0+b";

/// A package's archive; `text` makes it another one.
pub fn archive(version: &str, config_at: &str, text: &str) -> Vec<u8> {
    let config = format!(r#"{{"package_name": "tuning", "package_version": "{version}"}}"#);
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in [(config_at, config.as_str()), ("skyhook_dir/one.sh", text)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn sample() -> Vec<u8> {
    archive("1.0.0+b", "config.json", "#!/bin/sh\n")
}

async fn put(bench: &Bench, place: &str, content: Vec<u8>) -> Answer {
    bench.call("PUT", place, Some(&bench.operator), content).await
}

/// Names in the folder of packages.
fn files(bench: &Bench) -> Vec<String> {
    let folder: &Path = bench.app.store.data();
    let entries = std::fs::read_dir(folder.join("packages")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_package_is_stored_once_listed_shown_and_deleted() {
    let bench = Bench::start().await;
    let (content, sum) = (sample(), Sha256Hex::of(&sample()));
    let view = put(&bench, PLACE, content.clone()).await.expect(200);
    assert_eq!((&view["sha256"], &view["bytes"]), (&json!(sum), &json!(content.len())));
    assert_eq!(
        view["unpacked_bytes"],
        json!(r#"{"package_name": "tuning", "package_version": "1.0.0+b"}"#.len() + 10)
    );
    assert_eq!(files(&bench), [sum.as_str()]);
    // The same again is answered as at first, and with the sum announced without a look at the body.
    assert_eq!(put(&bench, PLACE, content.clone()).await.expect(200), view);
    assert_eq!(put(&bench, &format!("{PLACE}?sha256={sum}"), Vec::new()).await.expect(200), view);
    // A file that was lost comes back with the same content, whether its sum is announced or not.
    for place in [PLACE.to_owned(), format!("{PLACE}?sha256={sum}")] {
        std::fs::remove_file(bench.app.store.data().join("packages").join(sum.as_str())).unwrap();
        assert_eq!(put(&bench, &place, content.clone()).await.expect(200), view);
        assert_eq!(files(&bench), [sum.as_str()]);
    }
    let other = archive("1.0.0+b", "config.json", "#!/bin/sh\nexit 1\n");
    let refused = put(&bench, PLACE, other.clone()).await;
    refused.expect_error(
        409,
        "other_content",
        &[sum.as_str(), Sha256Hex::of(&other).as_str(), "another version"],
    );
    let announced = format!("{PLACE}?sha256={}", Sha256Hex::of(&other));
    put(&bench, &announced, Vec::new()).await.expect_error(409, "other_content", &[sum.as_str()]);
    assert_eq!(files(&bench), [sum.as_str()], "what was refused left a file");

    let next = archive("2", "./config.json", "#!/bin/sh\n");
    let packed = zstd::encode_all(&next[..], 3).unwrap();
    put(&bench, "/api/v1/packages/tuning/2", packed).await.expect(200);
    let list = bench.order("GET", "/api/v1/packages?limit=1", Value::Null).await.expect(200);
    assert_eq!((&list["packages"], &list["next"]), (&json!([view]), &json!("tuning/1.0.0+b")));
    let rest = bench.order("GET", "/api/v1/packages?after=tuning%2F1.0.0%2Bb", Value::Null).await.expect(200);
    assert_eq!((&rest["packages"][0]["version"], &rest["next"]), (&json!("2"), &Value::Null));
    assert_eq!(bench.order("GET", PLACE, Value::Null).await.expect(200), view);

    bench.order("DELETE", PLACE, Value::Null).await.expect(204);
    bench.order("GET", PLACE, Value::Null).await.expect_error(404, "none", &["tuning 1.0.0+b"]);
    bench.order("DELETE", PLACE, Value::Null).await.expect_error(404, "none", &[]);
    assert_eq!(files(&bench).len(), 1);
    // Deleted, its name is free.
    put(&bench, PLACE, other).await.expect(200);
    let audit = bench.app.store.audit_rows(u64::MAX, 10).await.unwrap();
    let said: Vec<_> = audit.iter().map(|row| (row.audit.action.as_str(), row.audit.text.as_str())).collect();
    assert_eq!(said[1], ("delete_package", "tuning 1.0.0+b"));
    assert!(said[3].0 == "put_package" && said[3].1.contains(sum.as_str()), "{said:?}");
}

#[tokio::test]
async fn what_is_no_package_of_that_name_is_refused_and_leaves_nothing() {
    let bench = Bench::start().await;
    let cut = sample()[..1024].to_vec();
    let mut flipped = zstd::encode_all(&sample()[..], 3).unwrap();
    flipped.truncate(flipped.len() / 2);
    for (content, words) in [
        (b"#!/bin/sh\n".to_vec(), ["no tar archive", "zstd"]),
        (Vec::new(), ["no tar archive", "gzip"]),
        (cut, ["the archive", "cut short"]),
        (flipped, ["the archive", "cannot be read"]),
        (archive("2", "config.json", ""), ["found package \"tuning\" \"2\"", "expected tuning 1.0.0+b"]),
        (archive("1.0.0+b", "tuning/config.json", ""), ["\"tuning/config.json\"", "tar -C"]),
        (archive("1.0.0+b", "other.json", ""), ["found none", "config.json at its top"]),
    ] {
        put(&bench, PLACE, content).await.expect_error(422, "unfit", &words);
    }
    let announced = format!("{PLACE}?sha256={}", Sha256Hex::of(b"another"));
    put(&bench, &announced, sample()).await.expect_error(422, "unfit", &["hashes to", "announced as"]);
    put(&bench, "/api/v1/packages/a_b/1", sample()).await.expect_error(400, "bad", &["package name", "a_b"]);
    put(&bench, "/api/v1/packages/a/..%2F1", sample()).await.expect_error(400, "bad", &["package version"]);
    put(&bench, &format!("{PLACE}?sha256=1"), sample()).await.expect_error(400, "bad", &["SHA-256"]);
    let long = request("PUT", PLACE, Some(&bench.operator)).header("content-length", PACKAGE_BYTES_MAX + 1);
    bench.send(long.body(Body::from("x")).unwrap()).await.expect_error(413, "too_large", &[]);
    assert_eq!(files(&bench), Vec::<String>::new());
    bench.order("GET", PLACE, Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_nearly_full_disk_takes_no_package() {
    let space = || Ok(DiskSpace { free_bytes: 4, total_bytes: 100 });
    let probe = std::sync::Arc::new(space);
    let bench = Bench::with(|options| {
        options.store =
            StoreOptions { free_percent_min: 5.0, disk_probe: Some(probe), ..StoreOptions::default() };
    });
    let bench = bench.await;
    put(&bench, PLACE, sample()).await.expect_error(507, "full", &["packages"]);
    assert_eq!(files(&bench), Vec::<String>::new());
}

#[tokio::test]
async fn files_that_no_row_names_go_with_a_sweep_and_those_of_others_stay() {
    let bench = Bench::start().await;
    put(&bench, PLACE, sample()).await.expect(200);
    let folder = bench.app.store.data().join("packages");
    std::fs::write(folder.join("ab".repeat(32)), "nobody's").unwrap();
    std::fs::write(folder.join("upload-under-way"), "half").unwrap();
    bench.app.store.sweep(groundcrew_protocol::time::WallMs(0)).await.unwrap();
    let mut left = files(&bench);
    left.sort();
    let mut expected = [Sha256Hex::of(&sample()).to_string(), "upload-under-way".to_owned()];
    expected.sort();
    assert_eq!(left, expected);
}

/// Drops a piece of work once it has waited so often; `None` then.
pub async fn dropped_after<T>(waits: usize, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (std::pin::pin!(work), waits);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn sweep(bench: &Bench) {
    bench.app.store.sweep(groundcrew_protocol::time::WallMs(0)).await.unwrap();
}

/// Waits until every upload that was begun has come to its end.
async fn all_ended(bench: &Bench) {
    let turns = u32::try_from(groundcrew_orchestrator::api::packages::UPLOADS_MAX).unwrap();
    drop(bench.app.uploads.acquire_many(turns).await.unwrap());
}

/// Uploads that are begun anew, each dropped at every one of its waits: far more than any machine was seen to need.
const ROUNDS_MAX: usize = 200;

#[tokio::test]
async fn a_package_whose_sender_goes_away_has_its_file_and_its_row_or_neither() {
    let bench = Bench::start().await;
    let (mut dropped, mut stored) = (0, 0);
    // How often an upload waits is the machine's to say: one that is busy elsewhere may have answered by the second look.
    for round in 0..ROUNDS_MAX {
        dropped += drop_at_each_wait(&bench, round, &mut stored).await;
        if dropped > 2 && stored > 1 {
            break;
        }
    }
    assert!(dropped > 2 && stored > 1, "dropped {dropped} times, and stored {stored} times all the same");
    assert!(files(&bench).iter().all(|name| !name.starts_with("upload-")), "{:?}", files(&bench));
}

/// Drops an upload after no wait, one, two and so on, until one is answered: how many were dropped. Counts those that are
/// stored.
async fn drop_at_each_wait(bench: &Bench, round: usize, stored: &mut usize) -> usize {
    let mut waits = 0;
    loop {
        let version = format!("1.{round}.{waits}");
        let (place, content) =
            (format!("/api/v1/packages/tuning/{version}"), archive(&version, "config.json", "x"));
        let answered = dropped_after(waits, put(bench, &place, content.clone())).await;
        // What removes files that no row names, in the midst of it.
        sweep(bench).await;
        all_ended(bench).await;
        let has_row = bench.order("GET", &place, Value::Null).await.status == 200;
        let has_file = files(bench).contains(&Sha256Hex::of(&content).to_string());
        assert_eq!(has_row, has_file, "dropped after {waits} waits");
        *stored += usize::from(has_row);
        if let Some(answer) = answered {
            answer.expect(200);
            return waits;
        }
        waits += 1;
    }
}

#[tokio::test]
async fn a_package_that_is_put_while_it_is_deleted_is_answered_as_it_was_stored() {
    let bench = Bench::start().await;
    for _turn in 0..50 {
        put(&bench, PLACE, sample()).await.expect(200);
        let (put, deleted) =
            tokio::join!(put(&bench, PLACE, sample()), bench.order("DELETE", PLACE, Value::Null));
        deleted.expect(204);
        let view = put.expect(200);
        assert_eq!(view["sha256"], json!(Sha256Hex::of(&sample())));
        let stands = bench.order("GET", PLACE, Value::Null).await.status == 200;
        assert_eq!(files(&bench).len(), usize::from(stands));
    }
}
