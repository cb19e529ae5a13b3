//! What `up` ends with: the verdict table, the files of the report, the page, and one last word.

use anyhow::Result;
use groundcrew_protocol::ids::RunId;

use super::folders::Folders;
use super::write;
use crate::api::{Api, explained};
use crate::output::{Reader, print, print_bytes, say_aside};
use crate::watch::End;
use crate::{why, words};

/// For whom.
pub(super) struct Look<'a> {
    pub(super) json: bool,
    pub(super) reader: Reader,
    /// The orchestrator's page of the run.
    pub(super) page: &'a str,
    /// True where the orchestrator stays up.
    pub(super) is_kept: bool,
}

/// Writes the report's files and prints the end of it.
///
/// # Errors
/// Where the report cannot be had or written.
pub(super) async fn show(api: &Api, run: &RunId, end: End, folders: &Folders, look: &Look<'_>) -> Result<()> {
    let (bytes, report) = api.report(run).await?;
    let json = folders.report().join("report.json");
    write(&json, &bytes)?;
    let html = folders.report().join("report.html");
    write(&html, &api.report_page(run).await?)?;
    let mut text = String::from("\n");
    text.push_str(&groundcrew_report::render_text(&report, look.reader.width, look.reader.colour));
    text.push_str(&format!(
        "\nReport  {}\n        {}\nPage    {}{}\n",
        html.display(),
        json.display(),
        look.page,
        if look.is_kept { "" } else { "\n        (it goes with the orchestrator; --keep leaves both up)" }
    ));
    match end {
        End::Completed => text.push_str("Completed\n"),
        End::Held | End::Cancelled => {
            let view = api.run(run).await.map_err(explained)?;
            let why = why::of(&view, words::now());
            text.push_str(&format!("\n{}", why::sentences(&why, look.reader.width)));
            if look.is_kept {
                text.push_str(&why::commands(&why));
            } else if end == End::Held {
                text.push_str("With --keep everything stays up, to look into it, retry or override.\n");
            }
        }
    }
    if look.json {
        say_aside(text.trim_end());
        return print_bytes(&bytes);
    }
    print(&text)
}
