//! A report as one HTML page: its style and drawings are in it, it loads nothing and runs no script.

use groundcrew_protocol::check::{Check, Observation, Verdict};
use groundcrew_protocol::order;
use groundcrew_protocol::report::{Report, StageReport};
use groundcrew_protocol::wire::{LogLevel, LogLine};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::words::{counted, duration, is_plain_pass, moment, severity, sign, stage_duration};
use crate::{hardware, plot};

const STYLE: &str = include_str!("style.css");
/// No script and nothing from elsewhere, even if something of a machine's slipped through.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Above this many plain passes in one stage they are folded.
const PASSES_SHOWN_MAX: usize = 40;

/// The page, from `<!DOCTYPE html>` to `</html>`.
pub fn render_html(report: &Report) -> String {
    let node = report.node.as_ref().map_or("this machine", |node| node.as_str());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (report.verdict) ": " (node) ", " (report.profile) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report, node))
                main {
                    h2 { "Stages" }
                    (stages(&report.stages))
                    h2 { "Checks" }
                    @for (index, stage) in report.stages.iter().enumerate() { (stage_section(index, stage)) }
                    h2 { "Sensors" }
                    (plot::plots(report))
                    h2 { "Hardware" }
                    @match &report.inventory {
                        Some(inventory) => (hardware::tables(inventory)),
                        None => p { "The hardware was not read." },
                    }
                    (gaps(&report.gaps))
                }
                footer { p { "Made " (moment(report.made)) " by Groundcrew " (report.version) "." } }
            }
        }
    }
    .into_string()
}

fn header(report: &Report, node: &str) -> Markup {
    let facts = [
        ("Run", report.run.as_ref().map(ToString::to_string)),
        ("Profile", Some(report.profile.to_string())),
        ("State", Some(report.state.to_string())),
        ("Began", Some(moment(report.began))),
        ("Ended", Some(report.ended.map_or_else(|| "not yet".to_owned(), moment))),
        ("Took", report.ended.map(|ended| duration(ended.0.saturating_sub(report.began.0)))),
        ("Checks", Some(tally(report))),
    ];
    html! {
        header {
            h1 { (badge(Some(report.verdict))) span { (node) } }
            @if !report.reason.is_empty() { p.reason { (report.reason) } }
            dl.facts {
                @for (name, value) in facts {
                    @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
                }
            }
        }
    }
}

/// How many checks came out how, the worst first.
fn tally(report: &Report) -> String {
    let all = || report.stages.iter().flat_map(|stage| &stage.checks);
    let verdicts = [Verdict::Fail, Verdict::Inconclusive, Verdict::Warn, Verdict::Skipped, Verdict::Pass];
    let counts = verdicts.map(|verdict| (verdict, all().filter(|check| check.verdict == verdict).count()));
    let parts =
        counts.iter().filter(|(_, count)| *count > 0).map(|(verdict, count)| format!("{count} {verdict}"));
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// The verdict as sign and word, in its colour.
fn badge(verdict: Option<Verdict>) -> Markup {
    html! {
        @match verdict {
            Some(verdict) => span class={ "badge " (verdict.as_str()) } {
                span aria-hidden="true" { (sign(verdict)) " " } (verdict)
            },
            None => span.badge.none { "none yet" },
        }
    }
}

fn stages(stages: &[StageReport]) -> Markup {
    html! {
        table.stack {
            thead {
                tr { @for head in ["Stage", "Verdict", "Took", "Attempts", "Notes"] { th scope="col" { (head) } } }
            }
            tbody {
                @for (index, stage) in stages.iter().enumerate() {
                    tr {
                        th scope="row" { a href={ "#stage-" (index) } { (stage.stage) } }
                        td { (badge(stage.counted())) }
                        td data-label="Took" { (stage_duration(stage).unwrap_or_else(|| "–".to_owned())) }
                        td data-label="Attempts" { (attempts(stage)) }
                        td.wide { (notes(stage)) }
                    }
                }
            }
        }
    }
}

fn attempts(stage: &StageReport) -> String {
    match stage.attempts {
        0 => "not started".to_owned(),
        1 => "1".to_owned(),
        attempts => format!("{attempts}, number {} counts", stage.attempt),
    }
}

fn notes(stage: &StageReport) -> Markup {
    html! {
        @if let Some(reason) = &stage.overridden {
            div {
                strong { "Overridden: " } (reason)
                @if let Some(verdict) = stage.verdict { span.soft { " (was " (verdict) ")" } }
            }
        }
        @if !stage.message.is_empty() { div { (stage.message) } }
        @if !stage.summary.is_empty() { div.soft { (stage.summary) } }
    }
}

fn stage_section(index: usize, stage: &StageReport) -> Markup {
    let mut checks: Vec<&Check> = stage.checks.iter().collect();
    order::sort_by_key(&mut checks, |check| severity(check.verdict));
    let passes = checks.iter().filter(|check| is_plain_pass(check)).count();
    let (folded, shown): (Vec<&Check>, Vec<&Check>) =
        checks.into_iter().partition(|check| passes > PASSES_SHOWN_MAX && is_plain_pass(check));
    html! {
        section id={ "stage-" (index) } {
            h3 { (stage.stage) " " (badge(stage.counted())) }
            @if stage.checks.is_empty() { p.soft { "No checks." } }
            @if !shown.is_empty() { (check_table(&format!("Checks of {}", stage.stage), &shown)) }
            @if !folded.is_empty() {
                details {
                    summary { (counted(folded.len(), "check")) " passed" }
                    (check_table(&format!("Passed checks of {}", stage.stage), &folded))
                }
            }
            @if !stage.log_tail.is_empty() {
                details {
                    summary { "End of the log (" (counted(stage.log_tail.len(), "line")) ")" }
                    pre { @for line in &stage.log_tail { (log_line(line)) } }
                }
            }
        }
    }
}

fn check_table(caption: &str, checks: &[&Check]) -> Markup {
    html! {
        table.stack.checks aria-label=(caption) {
            thead {
                tr {
                    @for head in ["Check", "Component", "Verdict", "Measured", "Limit", "Why"] {
                        th scope="col" { (head) }
                    }
                }
            }
            tbody { @for check in checks { (check_row(check)) } }
        }
    }
}

fn check_row(check: &Check) -> Markup {
    let limit = check.limit.describe();
    html! {
        tr {
            th scope="row" { (check.name) }
            td { (check.component.as_deref().unwrap_or_default()) }
            td { (badge(Some(check.verdict))) }
            td data-label="Measured" { (measured(&check.observed)) }
            @if limit.is_empty() { td {} } @else { td data-label="Limit" { (limit) } }
            td.wide {
                (check.reason)
                @if !check.evidence.is_empty() { details { summary { "Evidence" } pre { (check.evidence) } } }
            }
        }
    }
}

/// What was measured, or in a word why nothing was: the reason stands beside it.
fn measured(observed: &Observation) -> String {
    match observed {
        Observation::Measured { .. } | Observation::Found { .. } => observed.describe(),
        Observation::Unreadable { .. } => "not readable".to_owned(),
        Observation::Absent { .. } => "no source".to_owned(),
        Observation::Missing { .. } => "missing".to_owned(),
        Observation::Unexpected { .. } => "unexpected".to_owned(),
    }
}

fn log_line(line: &LogLine) -> Markup {
    let class = match line.level {
        LogLevel::Error => "fail",
        LogLevel::Warn => "warn",
        LogLevel::Debug => "soft",
        LogLevel::Info | LogLevel::Unknown(_) => "",
    };
    html! { span.at { (line.ts) " " (line.level) " " } span class=(class) { (line.text) } "\n" }
}

fn gaps(gaps: &[String]) -> Markup {
    html! {
        @if !gaps.is_empty() {
            h2 { "Gaps in the log" }
            ul { @for gap in gaps { li { (gap) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::Limit;
    use groundcrew_protocol::inventory::Inventory;
    use groundcrew_protocol::stage::{Stage, State};

    use super::*;
    use crate::sample::{line, sample, stage};

    /// Tags that are opened are closed, in order.
    fn assert_well_formed(page: &str) {
        let void = ["meta", "!DOCTYPE"];
        let mut open: Vec<&str> = Vec::new();
        let without_style =
            page.split("<style>").next().unwrap().to_owned() + page.split("</style>").nth(1).unwrap();
        for tag in without_style.split('<').skip(1) {
            let inner = tag.split('>').next().unwrap();
            let name = inner.trim_start_matches('/').split(' ').next().unwrap();
            if inner.starts_with('/') {
                let last = open.pop();
                assert_eq!(last, Some(name), "{tag}");
            } else if !void.contains(&name) {
                open.push(Box::leak(name.to_owned().into_boxed_str()));
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_page_has_what_a_report_has() {
        let page = render_html(&sample());
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">") && page.ends_with("</html>"));
        assert_well_formed(&page);
        for text in [
            "rack1-node7",
            "storage-2s",
            "r-7f3k9q2m",
            "FailedHolding",
            "2026-03-01 12:00:00 UTC",
            "not yet",
            "stage CPUStress failed: 2 miscompares, expected at most 0",
            "2 fail, 1 inconclusive, 2 warn, 1 skipped, 8 pass",
            "10 min 2 s",
            "2, number 2 counts",
            "not started",
            "Overridden: ",
            "known good, firmware words it otherwise (ops-1187)",
            "at least 729.6, warns above 806.4",
            "118234.5 bogo-ops/s",
            "the machine names no power supply",
            "End of the log (3 lines)",
            "matrixprod error detected",
            "960.2 GB",
            "755.1 GiB managed by the kernel",
            "4800 MT/s",
            "52:54:00:12:34:56",
            "eth1: input/output error",
            "stream 3f…: 12 chunks (640 KiB) let go, spool full",
            "Made 2026-03-01 12:11:40 UTC by Groundcrew 0.1.0.",
        ] {
            assert!(page.contains(text), "{text} is not on the page");
        }
        // Header, five stages in the table and in their sections, fourteen checks.
        assert_eq!(page.matches("class=\"badge").count(), 1 + 5 + 5 + 14);
        assert_eq!(page.matches("<th>").count(), 0, "every header cell says what it heads");
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = render_html(&sample());
        for outside in ["http:", "https:", "src=", "@import", "url(", "<script", "<link", "javascript:"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_worst_check_of_a_stage_comes_first_and_many_passes_are_folded() {
        let page = render_html(&sample());
        let at =
            |text: &str| page.find(&format!("scope=\"row\">{text}<")).unwrap_or_else(|| panic!("{text}"));
        assert!(at("miscompares") < at("frequency") && at("frequency") < at("throttling"));
        assert!(at("throttling") < at("rate"));
        let passes = |count: usize| {
            let check = |n| {
                let found = Observation::Found { text: "ok".to_owned() };
                Check::of("health", Some(&format!("S{n}")), found, Limit::default())
            };
            let mut report = sample();
            report.stages = vec![stage("SMART", 0, 1, (0..count).map(check).collect())];
            render_html(&report)
        };
        assert!(!passes(PASSES_SHOWN_MAX).contains("checks passed"));
        assert!(passes(PASSES_SHOWN_MAX + 1).contains("<summary>41 checks passed</summary>"));
    }

    #[test]
    fn a_report_of_nothing_is_a_page_too() {
        let mut report = sample();
        (report.run, report.node, report.inventory) = (None, None, None);
        (report.stages, report.sensors, report.gaps) = (Vec::new(), Vec::new(), Vec::new());
        report.ended = Some(groundcrew_protocol::time::WallMs(report.began.0 + 61_000));
        let page = render_html(&report);
        assert_well_formed(&page);
        for text in ["this machine", "The hardware was not read.", "No sensors on this machine", "1 min 1 s"]
        {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("Gaps in the log"));
    }

    const EVIL: &str = "<script>alert('&\"x\"')</script>";

    /// Every text of a value replaced, except the keys and the words that choose a variant.
    fn poisoned(value: &mut serde_json::Value, key: &str) {
        match value {
            serde_json::Value::String(text) => {
                let is_typed = ["kind", "verdict", "run", "node", "profile"].contains(&key);
                let is_sensor_kind =
                    key == "kind" && ["temperature", "fan", "power", "DDR5"].contains(&text.as_str());
                if !is_typed || is_sensor_kind {
                    *text = format!("{EVIL}{}", text.len());
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| poisoned(item, key)),
            serde_json::Value::Object(fields) => {
                fields.iter_mut().for_each(|(key, value)| poisoned(value, key))
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
    }

    #[test]
    fn no_text_of_a_machine_becomes_markup() {
        let mut report = sample();
        report.stages[0].log_tail.push(line(LogLevel::Unknown("new".to_owned()), "x"));
        report.stages[0].summary = "x".to_owned();
        report.sensors[0].key = EVIL.to_owned();
        if let Some(inventory) = report.inventory.as_deref_mut() {
            fill(inventory);
        }
        let mut value = serde_json::to_value(&report).unwrap();
        poisoned(&mut value, "");
        let report: Report = serde_json::from_value(value).unwrap();
        assert!(matches!(&report.state, State::At(Stage::Unknown(_))));
        let page = render_html(&report);
        assert_well_formed(&page);
        assert!(page.matches("&lt;script&gt;").count() > 80, "{}", page.matches("&lt;script&gt;").count());
        assert!(!page.contains("<script") && !page.contains("\"x\""), "{page}");
    }

    /// Gives every optional text of the inventory a value.
    fn fill(inventory: &mut Inventory) {
        let text = || Some("x".to_owned());
        let dmi = &mut inventory.dmi;
        (dmi.serial, dmi.uuid, dmi.board, dmi.board_serial) = (text(), text(), text(), text());
        (inventory.firmware.vendor, inventory.firmware.date) = (text(), text());
        for disk in &mut inventory.disks {
            (disk.wwn, disk.pci) = (text(), text());
        }
        inventory.gpus.iter_mut().for_each(|gpu| gpu.driver = text());
        inventory.psus.iter_mut().for_each(|psu| psu.serial = text());
    }
}
