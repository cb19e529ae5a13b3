//! A run's log, page by page; followed, the stream of events only says that there is more to read, so that no line is
//! missing or doubled when a connection breaks.

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use groundcrew_client::EventStream;
use groundcrew_protocol::ids::{RunId, Sha256Hex, Sha256Sum};
use groundcrew_protocol::operator::LogView;
use groundcrew_protocol::wire::LogLine;

use super::Desk;
use crate::api::explained;
use crate::output::{print, print_bytes, say_aside};
use crate::watch::{Backoff, SILENCE_MAX};
use crate::words::clean;

/// After a run's end its agent still sends what it has: lines wait up to two seconds for company, and a call for an
/// answer. So much silence after the end means that nothing more comes.
const QUIET_AFTER_END: Duration = Duration::from_secs(5);

/// Prints the log; with `follow` until the run has ended and its last lines have come.
pub(super) async fn run(desk: &Desk, run: &RunId, stage: Option<&str>, follow: bool) -> Result<()> {
    let mut place: Option<String> = None;
    if !follow {
        return read(desk, run, stage, &mut place).await.map_err(failed);
    }
    let mut backoff = Backoff::new();
    loop {
        match follow_once(desk, run, stage, &mut place, &mut backoff).await {
            Ok(()) => return Ok(()),
            Err(Failed::Ask(error)) if error.is_retried_quickly() => {
                say_aside(&format!("groundcrewctl: {}; asking again in {}", error.chain(), backoff.words()));
                backoff.wait().await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Writes the whole log, as it stands, into a file: that, from its beginning, its sum and its size.
pub(super) async fn write(desk: &Desk, run: &RunId, mut file: File) -> Result<(File, Sha256Hex, u64)> {
    let (mut sum, mut bytes) = (Sha256Sum::default(), 0);
    let mut place: Option<String> = None;
    loop {
        let (_, page) = desk.api.log_page(run, None, place.as_deref()).await.map_err(explained)?;
        let text: String = page.lines.iter().map(line).collect();
        file.write_all(text.as_bytes()).context("writing the log")?;
        sum.add(text.as_bytes());
        bytes += text.len() as u64;
        let moved = place.as_deref() != Some(page.next.as_str());
        place = Some(page.next);
        if page.at_end || !moved {
            file.rewind().context("reading the log back")?;
            return Ok((file, sum.of_all(), bytes));
        }
    }
}

/// Why a part of the log was not read.
#[derive(Debug)]
enum Failed {
    Ask(groundcrew_client::Error),
    Print(anyhow::Error),
}

fn failed(failed: Failed) -> anyhow::Error {
    match failed {
        Failed::Ask(error) => explained(error),
        Failed::Print(error) => error,
    }
}

/// Follows on one connection. `Ok` once the run has ended and nothing more came.
async fn follow_once(
    desk: &Desk,
    run: &RunId,
    stage: Option<&str>,
    place: &mut Option<String>,
    backoff: &mut Backoff,
) -> Result<(), Failed> {
    // Watching begins before reading, so that no line falls between the two.
    let mut events = desk.api.events(run, 0).await.map_err(Failed::Ask)?;
    loop {
        read(desk, run, stage, place).await?;
        let has_ended = desk.api.run(run).await.map_err(Failed::Ask)?.summary.state.is_ended();
        backoff.reset();
        if !wait(&mut events, has_ended).await? {
            return read(desk, run, stage, place).await;
        }
    }
}

/// Waits until there may be more to read. False where the run has ended and it stays quiet.
async fn wait(events: &mut EventStream, has_ended: bool) -> Result<bool, Failed> {
    loop {
        let next = events.next(SILENCE_MAX);
        let event = if has_ended {
            match tokio::time::timeout(QUIET_AFTER_END, next).await {
                Ok(event) => event,
                Err(_quiet) => return Ok(false),
            }
        } else {
            next.await
        };
        match event.map_err(Failed::Ask)? {
            Some(event) if event.event == "log" || (event.event == "event" && !has_ended) => return Ok(true),
            Some(_) => {}
            // The server has stopped, and is asked again as after a broken connection.
            None => return Ok(!has_ended),
        }
    }
}

/// Prints everything from a place on, and moves the place behind it.
async fn read(
    desk: &Desk,
    run: &RunId,
    stage: Option<&str>,
    place: &mut Option<String>,
) -> Result<(), Failed> {
    loop {
        let (bytes, page) = desk.api.log_page(run, stage, place.as_deref()).await.map_err(Failed::Ask)?;
        show(desk, &bytes, &page).map_err(Failed::Print)?;
        let moved = place.as_deref() != Some(page.next.as_str());
        *place = Some(page.next);
        if page.at_end || !moved {
            return Ok(());
        }
    }
}

fn show(desk: &Desk, bytes: &Bytes, page: &LogView) -> Result<()> {
    if page.lines.is_empty() {
        return Ok(());
    }
    if desk.json {
        return print_bytes(bytes);
    }
    let text: String = page.lines.iter().map(line).collect();
    print(&text)
}

fn line(line: &LogLine) -> String {
    let stage = line.stage.as_ref().map_or_else(String::new, |stage| format!("{stage} "));
    let level = line.level.as_str();
    clean(&format!("{} {level:5} {stage}{}", line.ts, line.text)) + "\n"
}
