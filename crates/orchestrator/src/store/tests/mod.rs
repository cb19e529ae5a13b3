//! Tests of the store against real files and a real SQLite.

mod damage;
mod facts;
mod logs;
mod measure;
mod overlap;
mod promised;
mod retention;
mod run_packages;
mod transfer;
mod writes;

use std::path::Path;
use std::sync::Arc;

use groundcrew_protocol::ids::{ClaimNumber, RandomId, RunId, Sha256Hex};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLevel, LogLine};

use super::*;

async fn open(data: &Path) -> Store {
    Store::open(data, StoreOptions::default()).await.unwrap()
}

fn run_id(name: &str) -> RunId {
    name.parse().unwrap()
}

fn stream(number: u8) -> RandomId {
    RandomId::from_bytes([number; 16])
}

/// The columns of a run that ended at `ended`, or has not.
fn columns(run: &RunId, ended: Option<i64>) -> RunColumns {
    RunColumns {
        node: "node-1".parse().unwrap(),
        profile: "demo".parse().unwrap(),
        state: if ended.is_some() { State::Completed } else { State::At(Stage::Inventory) },
        created: WallMs(1_000),
        updated: WallMs(2_000),
        ended: ended.map(WallMs),
        owes_notices: false,
        boot_token: Sha256Hex::of(run.as_str().as_bytes()),
        run_token: None,
        packages: Vec::new(),
    }
}

fn event(text: &str) -> NewEventRow {
    NewEventRow {
        at: WallMs(5),
        kind: "test".into(),
        actor: "agent".into(),
        text: text.into(),
        stage: None,
        state: State::FailedHolding,
    }
}

fn write(run: &RunId, doc: &str, ended: Option<i64>) -> RunWrite {
    RunWrite {
        doc: Some((RunDoc::of(doc), columns(run, ended))),
        events: vec![event(doc)],
        audit: None,
        results: Vec::new(),
        tells_restored: false,
    }
}

fn audit(action: &str) -> NewAudit {
    NewAudit { at: WallMs(7), actor: "ada".into(), action: action.into(), run: None, text: String::new() }
}

/// Puts a document, whatever was there.
async fn put(store: &Store, run: &RunId, doc: &str, ended: Option<i64>) {
    let row = write(run, doc, ended);
    let landed = store.change_run(run.clone(), move |_stored| Ok::<_, ()>((row, ()))).await.unwrap();
    assert_eq!(landed.unwrap().1.len(), 1);
}

async fn doc(store: &Store, run: &RunId) -> Option<Arc<str>> {
    match store.run(run).await.unwrap() {
        RunLookup::Found(run) => Some(Arc::from(run.doc.json())),
        RunLookup::Gone | RunLookup::Never => None,
    }
}

fn line(stage: Option<&str>, text: &str) -> LogLine {
    LogLine {
        ts: "2026-01-02T03:04:05.678Z".into(),
        level: LogLevel::Info,
        stage: stage.map(Stage::from),
        text: text.into(),
    }
}

fn chunk(run: &RunId, stream_number: u8, seq: u64, texts: &[&str]) -> LogChunk {
    LogChunk {
        run: run.clone(),
        stream: Some(stream(stream_number)),
        seq,
        claim: ClaimNumber(1),
        at: WallMs(10),
        lines: texts.iter().map(|text| line(Some("CPUStress"), text)).collect(),
        gap: None,
        closes: false,
    }
}

fn batch(run: &RunId, seq: u64, value: f64) -> SensorBatch {
    SensorBatch {
        run: run.clone(),
        stream: Some(stream(9)),
        seq,
        claim: ClaimNumber(1),
        at: WallMs(10),
        samples: vec![groundcrew_protocol::wire::SensorSample {
            kind: "temperature".into(),
            key: "cpu".into(),
            value,
            unit: "°C".into(),
            ts: WallMs(11),
        }],
        gap: None,
        closes: false,
    }
}

/// Lets every task that was spawned on this test's one thread run until it waits.
async fn let_all_hand_in() {
    for _turn in 0..10 {
        tokio::task::yield_now().await;
    }
}
