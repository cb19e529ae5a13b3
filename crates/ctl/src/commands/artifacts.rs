//! Raw output of the tools of a run: listed and fetched.

use std::path::Path;

use anyhow::{Context, Result};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::ArtifactView;

use super::Desk;
use crate::api::{Answer, query, run_path};
use crate::arguments::ArtifactCommand;
use crate::output::{print, print_exactly};
use crate::{tables, words};

/// Does one command about artifacts.
pub(super) async fn run(desk: &Desk, command: ArtifactCommand) -> Result<()> {
    match command {
        ArtifactCommand::List(argument) => {
            let answer = desk.api.get(&run_path(&argument.run, "/artifacts")).await?;
            let text = |answer: &Answer| {
                Ok(tables::artifacts(&answer.parse::<Vec<ArtifactView>>()?, &desk.reader, words::now()))
            };
            desk.show(&answer, text)
        }
        ArtifactCommand::Get { run, stage, attempt, name, output } => {
            get(desk, &run, &stage, attempt, &name, output.as_deref()).await
        }
    }
}

async fn get(
    desk: &Desk,
    run: &RunId,
    stage: &str,
    attempt: u32,
    name: &str,
    output: Option<&Path>,
) -> Result<()> {
    let attempt = attempt.to_string();
    let which = query(&[("stage", Some(stage)), ("attempt", Some(&attempt)), ("name", Some(name))]);
    let content = desk.api.artifact(&run_path(run, &format!("/artifact{which}"))).await?;
    match output {
        Some(path) => {
            std::fs::write(path, &content).with_context(|| format!("writing {}", path.display()))?;
            print(&format!("{}\n", path.display()))
        }
        // A tool wrote it, and a tool may write anything.
        None if desk.reader.is_terminal => {
            let text = String::from_utf8_lossy(&content);
            let lines = text.lines().map(|line| format!("{}\n", words::clean(line)));
            print(&lines.collect::<String>())
        }
        None => print_exactly(&content),
    }
}
