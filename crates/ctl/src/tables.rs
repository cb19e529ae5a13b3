//! Nodes, profiles, runs and tokens as tables and blocks of text. Pure.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, TableStyle};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::hold::{RegisteredKey, RegisteredKeys};
use groundcrew_protocol::operator::{
    ArtifactView, AuditList, CertificateView, Node, NodeList, PackageList, ProfileList, RunCreated, RunList,
    RunSummary, RunView, StageView, TaskView, TokenView,
};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_report::sign;

use crate::output::Reader;
use crate::why;
use crate::words::{age, ago, ahead, clean, moment, span, wrapped};

mod agents;
mod drains;

pub(crate) use agents::agents;
pub(crate) use drains::{drain_asked, drains, drains_ended, node_view};

/// Narrower than this no table can be drawn in columns.
const WIDTH_MIN: usize = 20;
/// From here on a list of runs has room for the reasons in a column of their own.
const WIDTH_WITH_REASONS: usize = 120;

fn table(reader: &Reader, heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new())
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(reader.width.max(WIDTH_MIN)).unwrap_or(u16::MAX))
        .set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    if reader.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table as text; where the terminal is too narrow for its columns, each row as a block of lines.
fn finished(mut table: Table, reader: &Reader) -> String {
    if let Some(last) = table.column_count().checked_sub(1).and_then(|last| table.column_mut(last)) {
        last.set_padding((0, 0));
    }
    let text = table.trim_fmt() + "\n";
    if fits(&table, &text, reader.width) { text } else { blocks(&table, reader.width) }
}

fn heads(table: &Table) -> impl Iterator<Item = String> {
    table.header().into_iter().flat_map(|header| header.cell_iter().map(Cell::content))
}

/// True where no line is wider than the terminal and no head is broken: columns that are narrower than their heads cannot be
/// read.
fn fits(table: &Table, text: &str, width: usize) -> bool {
    let plain = without_styles(text);
    let first = plain.lines().next().unwrap_or("");
    heads(table).all(|head| first.contains(&head)) && plain.lines().all(|line| line.chars().count() <= width)
}

/// The text without what sets colours (ECMA-48, section 8.3.117).
fn without_styles(text: &str) -> String {
    let parts = text.split("\x1b[").enumerate();
    parts
        .map(|(at, part)| if at == 0 { part } else { part.split_once('m').map_or("", |(_, text)| text) })
        .collect()
}

fn blocks(table: &Table, width: usize) -> String {
    let block = |row: &Row| -> String {
        let cells = heads(table).zip(row.cell_iter().map(Cell::content)).filter(|(_, cell)| !cell.is_empty());
        cells.map(|(head, cell)| wrapped(&format!("{head}: {cell}"), width)).collect()
    };
    table.row_iter().map(block).collect::<Vec<_>>().join("\n")
}

/// The note under a part of a list.
fn more(text: String, next: Option<&str>) -> String {
    match next {
        Some(next) => format!("{text}There are more: --after {next}\n"),
        None => text,
    }
}

fn colour_of(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Warn => Color::Yellow,
        Verdict::Fail => Color::Red,
        Verdict::Inconclusive => Color::Magenta,
        Verdict::Skipped => Color::DarkGrey,
    }
}

fn verdict_cell(verdict: Option<Verdict>) -> Cell {
    match verdict {
        Some(verdict) => Cell::new(format!("{} {verdict}", sign(verdict))).fg(colour_of(verdict)),
        None => Cell::new("·"),
    }
}

fn state_cell(state: &State) -> Cell {
    let cell = Cell::new(clean(&state.to_string()));
    match state {
        State::Completed => cell.fg(Color::Green),
        State::FailedHolding => cell.fg(Color::Red),
        State::Cancelled => cell.fg(Color::DarkGrey),
        State::At(_) => cell.fg(Color::Cyan),
    }
}

/// Nodes.
pub(crate) fn nodes(list: &NodeList, reader: &Reader) -> String {
    if list.nodes.is_empty() {
        return "No nodes. Make one with `groundcrewctl node put NAME`.\n".to_owned();
    }
    let mut table = table(reader, &["NODE", "SERIAL", "MACS", "LABELS"]);
    for node in &list.nodes {
        table.add_row([
            node.name.to_string(),
            clean(node.serial.as_deref().unwrap_or("")),
            node.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            labels(node),
        ]);
    }
    more(finished(table, reader), list.next.as_ref().map(|next| next.as_str()))
}

fn labels(node: &Node) -> String {
    let labels = node.labels.iter().map(|(key, value)| clean(&format!("{key}={value}")));
    labels.collect::<Vec<_>>().join(" ")
}

/// A node.
pub(crate) fn node(node: &Node) -> String {
    let macs: Vec<String> = node.macs.iter().map(ToString::to_string).collect();
    let serial = clean(node.serial.as_deref().unwrap_or("-"));
    block(&[
        ("Node", node.name.to_string()),
        ("Serial", serial),
        ("MACs", or_dash(macs.join(" "))),
        ("Labels", or_dash(labels(node))),
    ])
}

/// Names of profiles.
pub(crate) fn profiles(list: &ProfileList) -> String {
    if list.profiles.is_empty() {
        return "No profiles. Put one with `groundcrewctl profile put FILE`.\n".to_owned();
    }
    let names: String = list.profiles.iter().map(|name| format!("{name}\n")).collect();
    more(names, list.next.as_ref().map(|next| next.as_str()))
}

/// Runs: why each stands where it stands in a column where there is room, else in lines beneath.
pub(crate) fn runs(list: &RunList, reader: &Reader, now: WallMs) -> String {
    let next = list.next.as_ref().map(|next| next.as_str());
    if list.runs.is_empty() {
        return more("No runs.\n".to_owned(), next);
    }
    let is_wide = reader.width >= WIDTH_WITH_REASONS;
    let heads = ["RUN", "STATE", "VERDICT", "AGENT", "AGE", "NODE", "PROFILE", "WHY"];
    let heads = if is_wide { &heads[..] } else { &heads[..heads.len() - 1] };
    let mut table = table(reader, heads);
    for run in &list.runs {
        let mut cells = vec![
            Cell::new(&run.run),
            state_cell(&run.state),
            verdict_cell(run.verdict),
            Cell::new(clean(run.agent.as_deref().unwrap_or("-"))),
            Cell::new(age(run.created, now)),
            Cell::new(&run.node),
            Cell::new(&run.profile),
        ];
        if is_wide {
            cells.push(Cell::new(in_short(run, now)));
        }
        table.add_row(cells);
    }
    // What is compared and copied stays in one piece.
    for column in 0..5 {
        table.column_mut(column).expect("there are more").set_constraint(ColumnConstraint::ContentWidth);
    }
    let mut text = finished(table, reader);
    if !is_wide {
        for run in list.runs.iter().filter(|run| !run.state.is_ended()) {
            text.push_str(&wrapped(&format!("{}: {}", run.run, in_short(run, now)), reader.width));
        }
    }
    more(text, next)
}

/// The keys that operators have registered for holds.
pub(crate) fn hold_keys(list: &RegisteredKeys) -> String {
    if list.keys.is_empty() {
        return "No keys are registered: each hold has one of its own, with which `groundcrewctl run ssh RUN` logs in.\n"
            .to_owned();
    }
    list.keys.iter().map(hold_key).collect()
}

/// One of them: its name, and the line whole, since it is compared and copied.
pub(crate) fn hold_key(key: &RegisteredKey) -> String {
    format!("{}  {}\n", key.name, clean(&key.authorized_key))
}

/// Why it stands where it stands, in a few words.
fn in_short(run: &RunSummary, now: WallMs) -> String {
    if !run.reason.is_empty() {
        return clean(&run.reason);
    }
    match &run.wait {
        Some(wait) => clean(&format!("waits for {}, {}", wait.r#for, ahead(wait.until, now))),
        None => String::new(),
    }
}

/// A run: why it stands where it stands, then everything else.
pub(crate) fn run(view: &RunView, reader: &Reader, now: WallMs) -> String {
    let summary = &view.summary;
    let stage = summary.stage.as_ref().map_or_else(|| "-".to_owned(), |stage| clean(&stage.to_string()));
    let mut rows = vec![
        ("State", clean(&summary.state.to_string())),
        ("Stage", format!("{stage}, attempt {}", summary.attempt)),
    ];
    if !summary.reason.is_empty() {
        rows.push(("Reason", clean(&summary.reason)));
    }
    match &summary.wait {
        Some(wait) => {
            rows.push(("Waits for", clean(&wait.r#for)));
            rows.push(("  since", format!("{} ({})", moment(wait.since, now), ago(wait.since, now))));
            rows.push(("  until", format!("{} ({})", moment(wait.until, now), ahead(wait.until, now))));
            rows.push(("  then", clean(&wait.then)));
        }
        None => rows.push(("Waits for", "nothing".to_owned())),
    }
    if let Some(rebooting) = &summary.rebooting {
        rows.push(("Rebooting", drains::reboot(rebooting, now)));
    }
    rows.push(("Agent", agent(view, now)));
    rows.extend(view.hold_key.iter().map(|key| ("Key", clean(key))));
    rows.extend(
        view.hold_key_failed.iter().map(|why| ("Key", format!("none could be made: {}", clean(why)))),
    );
    rows.extend(view.machine_unproved.iter().map(|why| ("Machine", format!("not proved: {}", clean(why)))));
    if let Some(skew_ms) = view.skew_ms {
        let side = if skew_ms > 0 { "ahead of" } else { "behind" };
        let skew = span(skew_ms.saturating_abs());
        rows.push(("Clock", format!("the agent's is {skew} {side} the orchestrator's")));
    }
    rows.push(("Directives", or_dash(clean(&view.directives.join(", ")))));
    rows.extend(view.gaps.iter().map(|gap| ("Log gap", clean(gap))));
    rows.push(("Created", format!("{} ({})", moment(summary.created, now), ago(summary.created, now))));
    if let Some(ended) = summary.ended {
        rows.push(("Ended", format!("{} ({})", moment(ended, now), ago(ended, now))));
    }
    let title = format!("Run {} of node {}, profile {}\n", summary.run, summary.node, summary.profile);
    title
        + &block(&rows)
        + "\n"
        + &stages(&view.stages, reader, now)
        + "\n"
        + &why::commands(&why::of(view, now))
}

fn agent(view: &RunView, now: WallMs) -> String {
    let Some(agent) = &view.summary.agent else { return "none has claimed the run".to_owned() };
    let mut text = clean(agent);
    if !view.activity.is_empty() && !view.summary.state.is_ended() {
        text.push_str(&format!(", {}", clean(&view.activity)));
    }
    if !view.ip.is_empty() {
        text.push_str(&format!(" at {}", clean(&view.ip)));
    }
    let heard = view.last_heard.map_or_else(|| "never".to_owned(), |heard| ago(heard, now));
    format!("{text} (claim {}), last heard {heard}", view.claim)
}

/// The stages of a run.
pub(crate) fn stages(stages: &[StageView], reader: &Reader, now: WallMs) -> String {
    let mut table = table(reader, &["STAGE", "VERDICT", "ATTEMPTS", "TIME", "DEADLINE", "OVERRIDE"]);
    for stage in stages {
        let verdict = if stage.overridden.is_some() { Some(Verdict::Warn) } else { stage.verdict };
        let here = stage.began.map(|began| stage.ended.unwrap_or(now).0.saturating_sub(began.0));
        let took_ms = stage.took_ms.and_then(|took_ms| i64::try_from(took_ms).ok());
        let time = took_ms.or(here).map_or_else(String::new, span);
        table.add_row([
            Cell::new(clean(&stage.stage.to_string())),
            verdict_cell(verdict),
            Cell::new(stage.attempts),
            Cell::new(time),
            Cell::new(span(i64::try_from(stage.deadline_ms).unwrap_or(i64::MAX))),
            Cell::new(clean(stage.overridden.as_deref().unwrap_or(""))),
        ]);
    }
    finished(table, reader)
}

/// A run that was made, and how to start its agent.
pub(crate) fn created(created: &RunCreated) -> String {
    let going: Vec<String> = created.also_going.iter().map(ToString::to_string).collect();
    let warning = if going.is_empty() {
        String::new()
    } else {
        format!(
            "Warning: the node has other runs that have not ended: {}. Agents of two runs on one machine disturb each \
             other; end what is not meant with `groundcrewctl run cancel RUN`.\n",
            going.join(" ")
        )
    };
    format!(
        "Run {}\nBoot token (shown this once): {}\nKernel arguments for the node:\n  {}\n{warning}",
        created.run,
        created.boot_token,
        clean(&created.kernel_arguments)
    )
}

/// Operators' tokens.
pub(crate) fn tokens(tokens: &[TokenView], reader: &Reader, now: WallMs) -> String {
    let mut table = table(reader, &["NAME", "MADE", "REVOKED"]);
    for token in tokens {
        let revoked = token.revoked.map_or_else(String::new, |at| moment(at, now));
        table.add_row([clean(&token.name), moment(token.created, now), revoked]);
    }
    finished(table, reader)
}

/// Artifacts of a run.
pub(crate) fn artifacts(artifacts: &[ArtifactView], reader: &Reader, now: WallMs) -> String {
    if artifacts.is_empty() {
        return "No artifacts.\n".to_owned();
    }
    let mut table = table(reader, &["STAGE", "ATTEMPT", "NAME", "BYTES", "CAME"]);
    for artifact in artifacts {
        table.add_row([
            clean(&artifact.stage.to_string()),
            artifact.attempt.to_string(),
            clean(&artifact.name),
            artifact.bytes.to_string(),
            moment(artifact.at, now),
        ]);
    }
    finished(table, reader)
}

/// Packages that are stored.
pub(crate) fn packages(list: &PackageList, reader: &Reader, now: WallMs) -> String {
    if list.packages.is_empty() {
        return "No packages.\n".to_owned();
    }
    let mut table = table(reader, &["NAME", "VERSION", "BYTES", "SHA-256", "STORED", "BY"]);
    for package in &list.packages {
        table.add_row([
            package.name.to_string(),
            package.version.to_string(),
            package.bytes.to_string(),
            package.sha256.to_string(),
            moment(package.at, now),
            clean(&package.by),
        ]);
    }
    let more = list.next.as_ref().map(|next| format!("More: --after {}\n", clean(next)));
    finished(table, reader) + &more.unwrap_or_default()
}

/// The certificate that is served.
pub(crate) fn certificate(view: &CertificateView) -> String {
    let Some(next) = &view.next else {
        return format!("Served: {}\nNo rotation is under way.\n", view.fingerprint);
    };
    let runs: Vec<String> = view.waiting_for.iter().map(ToString::to_string).collect();
    let waits = match runs.as_slice() {
        [] => match view.earliest_in_s {
            None | Some(0) => "Every agent of the last 7 days knows it: it is served in a moment.".to_owned(),
            Some(left) => format!(
                "Every agent of the last 7 days knows it: it is served in {left} s. Agents that wait for a claim hear of it \
                 meanwhile."
            ),
        },
        runs => format!("It waits for the agents of {} runs: {}", runs.len(), runs.join(" ")),
    };
    format!("Served: {}\nNext:   {next}\n{waits}\n", view.fingerprint)
}

/// The orchestrator's tasks.
pub(crate) fn tasks(tasks: &[TaskView], reader: &Reader, now: WallMs) -> String {
    let mut table = table(reader, &["TASK", "HEALTHY", "PASSES", "FAILED", "LAST", "SAID"]);
    for task in tasks {
        let healthy = if task.healthy { Cell::new("yes") } else { Cell::new("no").fg(Color::Red) };
        table.add_row([
            Cell::new(clean(&task.name)),
            healthy,
            Cell::new(task.passes),
            Cell::new(task.failures),
            Cell::new(task.last.map_or_else(|| "-".to_owned(), |at| ago(at, now))),
            Cell::new(clean(&task.said)),
        ]);
    }
    finished(table, reader)
}

/// The audit trail.
pub(crate) fn audit(list: &AuditList, reader: &Reader, now: WallMs) -> String {
    if list.rows.is_empty() {
        return "Nobody has done anything.\n".to_owned();
    }
    let mut table = table(reader, &["WHEN", "WHO", "DID", "RUN", "WHAT"]);
    for row in &list.rows {
        table.add_row([
            moment(row.at, now),
            clean(&row.actor),
            clean(&row.action),
            row.run.as_ref().map(ToString::to_string).unwrap_or_default(),
            clean(&row.text),
        ]);
    }
    more(finished(table, reader), list.next.map(|next| next.to_string()).as_deref())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn block(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("  {name:width$}  {value}\n")).collect()
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
