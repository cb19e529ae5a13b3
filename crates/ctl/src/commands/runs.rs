//! Runs: made, listed, shown, followed and ordered about.

use std::io::Write;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::{CreateRun, Order, RunCreated, RunList, RunView};
use groundcrew_protocol::stage::Stage;
use http::Method;

use super::{Desk, bundle, logs, page, ssh};
use crate::api::{Answer, run_path};
use crate::arguments::{EndArguments, OverrideArguments, RetryArguments, RunCommand};
use crate::error::NotCompleted;
use crate::output::{print, print_bytes};
use crate::watch::{self, End};
use crate::{tables, why, words};

/// Does one command about runs.
pub(super) async fn run(desk: &Desk, command: RunCommand) -> Result<()> {
    match command {
        RunCommand::Create { node, profile, notify } => {
            let answer = desk.api.post("/api/v1/runs", &CreateRun { node, profile, notify }).await?;
            desk.show(&answer, |answer| Ok(tables::created(&answer.parse::<RunCreated>()?)))
        }
        RunCommand::List { state, node, page: part } => {
            let node = node.as_ref().map(|node| node.as_str());
            let path = format!("/api/v1/runs{}", page(&part, &[("state", state.as_deref()), ("node", node)]));
            let answer = desk.api.get(&path).await?;
            let text =
                |answer: &Answer| Ok(tables::runs(&answer.parse::<RunList>()?, &desk.reader, words::now()));
            desk.show(&answer, text)
        }
        RunCommand::Show(argument) => show(desk, &desk.api.get(&run_path(&argument.run, "")).await?),
        RunCommand::Why(argument) => {
            let answer = desk.api.get(&run_path(&argument.run, "")).await?;
            desk.show(&answer, |answer| {
                Ok(why::text(&answer.parse::<RunView>()?, words::now(), desk.reader.width))
            })
        }
        RunCommand::Watch { run, through_holds } => watch(desk, &run, through_holds).await,
        RunCommand::Logs { run, stage, follow } => logs::run(desk, &run, stage.as_deref(), follow).await,
        RunCommand::Report { run, bundle: Some(path), .. } => bundle::write(desk, &run, &path).await,
        RunCommand::Report { run, html, bundle: None } => report(desk, &run, html.as_deref()).await,
        RunCommand::Retry(RetryArguments { run, stage, reason, wipe }) => {
            give(desk, "retry", &run, Order { stage: stage.map(Stage::from), reason, wipe }).await
        }
        RunCommand::Override(OverrideArguments { run, stage, reason }) => {
            let stage = stage.map(Stage::from);
            give(desk, "override", &run, Order { stage, reason, ..Order::default() }).await
        }
        RunCommand::Cancel(EndArguments { run, reason }) => end(desk, "cancel", &run, reason).await,
        RunCommand::Release(EndArguments { run, reason }) => end(desk, "release", &run, reason).await,
        RunCommand::Abort(EndArguments { run, reason }) => end(desk, "abort", &run, reason).await,
        RunCommand::Ssh(arguments) => ssh::log_in(desk, arguments).await,
        RunCommand::HoldKey(arguments) => ssh::hold_key(desk, arguments).await,
        RunCommand::Delete(argument) => {
            desk.delete(&run_path(&argument.run, ""), "run", argument.run.as_str()).await
        }
        RunCommand::Token(argument) => {
            let path = run_path(&argument.run, "/token");
            let answer = desk.api.send(Method::POST, &path, Bytes::new()).await?;
            desk.show(&answer, |answer| Ok(tables::created(&answer.parse::<RunCreated>()?)))
        }
    }
}

fn show(desk: &Desk, answer: &Answer) -> Result<()> {
    desk.show(answer, |answer| Ok(tables::run(&answer.parse::<RunView>()?, &desk.reader, words::now())))
}

async fn end(desk: &Desk, word: &str, run: &RunId, reason: String) -> Result<()> {
    give(desk, word, run, Order { reason, ..Order::default() }).await
}

async fn give(desk: &Desk, word: &str, run: &RunId, order: Order) -> Result<()> {
    let path = run_path(run, &format!("/{word}"));
    let answer = desk.api.post(&path, &order).await?;
    desk.show(&answer, |answer| Ok(why::text(&answer.parse::<RunView>()?, words::now(), desk.reader.width)))
}

async fn watch(desk: &Desk, run: &RunId, through_holds: bool) -> Result<()> {
    let face = match (desk.json, desk.reader.is_terminal) {
        (true, _) => watch::Face::Json,
        (false, true) => watch::Face::Bars(desk.reader),
        (false, false) => watch::Face::Lines,
    };
    match watch::run(&desk.api, run, watch::Options { through_holds, face }).await? {
        End::Completed => {
            if !desk.json {
                print("Completed\n")?;
            }
            Ok(())
        }
        End::Cancelled | End::Held => {
            if !desk.json {
                print(&why::text(&desk.api.run(run).await?, words::now(), desk.reader.width))?;
            }
            Err(NotCompleted.into())
        }
    }
}

async fn report(desk: &Desk, run: &RunId, html: Option<&std::path::Path>) -> Result<()> {
    if let Some(path) = html {
        let page = desk.api.report_page(run).await?;
        let doing = || format!("writing {}", path.display());
        if path.is_dir() {
            bail!("{} is a folder; --html takes a file", path.display());
        }
        std::fs::File::create(path).and_then(|mut file| file.write_all(&page)).with_context(doing)?;
        return print(&format!("{}\n", path.display()));
    }
    let (bytes, report) = desk.api.report(run).await?;
    if desk.json {
        return print_bytes(&bytes);
    }
    print(&groundcrew_report::render_text(&report, desk.reader.width, desk.reader.colour))
}
