//! A report for a terminal: stages with their verdicts, then every check that is no plain pass.

use groundcrew_protocol::check::{Check, Verdict};
use groundcrew_protocol::order;
use groundcrew_protocol::report::{Report, StageReport};

use crate::words::{counted, duration, is_plain_pass, severity, sign, stage_duration};

/// A narrower terminal gets lines that end in an ellipsis before they say anything.
const WIDTH_MIN: usize = 20;
/// Most lines that a reason goes over. What does not fit even then is in the page.
const REASON_LINES_MAX: usize = 6;
/// Widest column of names: longer ones are cut so that the reason has room.
const NAME_WIDTH_MAX: usize = 40;

/// The report in lines of at most `width` characters (20 at least), each ended by a newline.
///
/// With `colour`, verdicts carry the terminal's colours; without it there is no escape sequence.
pub fn render_text(report: &Report, width: usize, colour: bool) -> String {
    let width = width.max(WIDTH_MIN);
    let mut lines = head(report, width);
    lines.push(Line::default());
    lines.extend(stage_lines(&report.stages, width));
    let noted: Vec<(&StageReport, &Check)> = noted_checks(&report.stages);
    if !noted.is_empty() {
        lines.push(Line::default());
        lines.extend(check_lines(&noted, width));
    }
    lines.push(Line::default());
    lines.push(Line::plain(&passes(&report.stages)));
    lines.extend(report.gaps.iter().map(|gap| Line::plain(&format!("Not in the log: {gap}"))));
    lines.iter().map(|line| line.render(width, colour)).collect()
}

fn head(report: &Report, width: usize) -> Vec<Line> {
    let node = report.node.as_ref().map_or("this machine", |node| node.as_str());
    let mut first = Line::default();
    first.push(&verdict_cell(Some(report.verdict)), Some(report.verdict));
    let run = report.run.as_ref().map_or_else(String::new, |run| format!(", run {run}"));
    first.push(&format!("  {node}, profile {}{run}: {}", report.profile, report.state), None);
    let mut lines = vec![first];
    if !report.reason.is_empty() {
        lines.extend(folded(&clean(&report.reason), width).iter().map(|line| Line::plain(line)));
    }
    if let Some(ended) = report.ended {
        lines.push(Line::plain(&format!("Took {}.", duration(ended.0.saturating_sub(report.began.0)))));
    }
    lines
}

fn stage_lines(stages: &[StageReport], width: usize) -> Vec<Line> {
    let rows: Vec<Row> = stages
        .iter()
        .map(|stage| Row {
            verdict: stage.counted(),
            cells: vec![
                stage.stage.to_string(),
                stage_duration(stage).unwrap_or_default(),
                match stage.attempts {
                    0 | 1 => String::new(),
                    attempts => format!("attempt {} of {attempts}", stage.attempt),
                },
            ],
            last: match (&stage.overridden, stage.message.is_empty()) {
                (Some(reason), _) => format!("overridden: {reason}"),
                (None, false) => stage.message.clone(),
                (None, true) => stage.summary.clone(),
            },
        })
        .collect();
    table(["STAGE", "TIME", "", "WHAT IT SAYS"], &rows, width)
}

/// Checks that are no plain passes, worst first, in the order of their stages.
fn noted_checks(stages: &[StageReport]) -> Vec<(&StageReport, &Check)> {
    let all = stages.iter().flat_map(|stage| stage.checks.iter().map(move |check| (stage, check)));
    let mut noted: Vec<_> = all.filter(|(_, check)| !is_plain_pass(check)).collect();
    order::sort_by_key(&mut noted, |(_, check)| severity(check.verdict));
    noted
}

fn check_lines(noted: &[(&StageReport, &Check)], width: usize) -> Vec<Line> {
    let mut rows: Vec<(usize, Row)> = Vec::with_capacity(noted.len());
    for (stage, check) in noted {
        let row = Row {
            verdict: Some(check.verdict),
            cells: vec![
                stage.stage.to_string(),
                check.name.clone(),
                check.component.clone().unwrap_or_default(),
            ],
            last: if check.reason.is_empty() { check.observed.describe() } else { check.reason.clone() },
        };
        // What a machine does not have it does not have in any stage: that is said once.
        let is_same =
            |of: &Row| of.verdict == row.verdict && of.cells[1..] == row.cells[1..] && of.last == row.last;
        match rows.iter_mut().find(|(_, of)| check.verdict == Verdict::Skipped && is_same(of)) {
            Some((stages, of)) => {
                *stages += 1;
                of.cells[0] = format!("{stages} stages");
            }
            None => rows.push((1, row)),
        }
    }
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    table(["STAGE", "CHECK", "COMPONENT", "WHY"], &rows, width)
}

fn passes(stages: &[StageReport]) -> String {
    let checks = || stages.iter().flat_map(|stage| &stage.checks);
    let passes = checks().filter(|check| is_plain_pass(check)).count();
    format!("{} of {} passed.", passes, counted(checks().count(), "check"))
}

struct Row {
    verdict: Option<Verdict>,
    /// Cells of columns that are as wide as their widest cell.
    cells: Vec<String>,
    /// What takes the rest of the line.
    last: String,
}

/// Verdict first, then the columns; one that is empty everywhere is left out.
fn table(heads: [&str; 4], rows: &[Row], width: usize) -> Vec<Line> {
    let verdict_width = rows.iter().map(|row| length(&verdict_cell(row.verdict))).max().unwrap_or(0);
    let verdict_width = verdict_width.max(length("VERDICT"));
    // The last column gets at least a third of the line.
    let room = (width * 2 / 3).saturating_sub(verdict_width);
    let widths: Vec<usize> = (0..heads.len() - 1)
        .map(|column| {
            let widest = rows.iter().map(|row| length(&clean(&row.cells[column]))).max().unwrap_or(0);
            let head = if widest == 0 { 0 } else { length(heads[column]) };
            widest.max(head).min(NAME_WIDTH_MAX).min((room / 2).max(6))
        })
        .collect();
    let columns = |cells: &[&str], line: &mut Line| {
        for (cell, column_width) in cells.iter().zip(&widths).filter(|(_, column_width)| **column_width > 0) {
            line.push(&format!("  {}", padded(&clean(cell), *column_width)), None);
        }
    };
    let mut head = Line::plain(&padded("VERDICT", verdict_width));
    columns(&heads[..heads.len() - 1], &mut head);
    if rows.iter().any(|row| !row.last.is_empty()) {
        head.push(&format!("  {}", heads[heads.len() - 1]), None);
    }
    let mut lines = vec![head];
    let before =
        verdict_width + 2 + widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>();
    for row in rows {
        let mut line = Line::default();
        line.push(&padded(&verdict_cell(row.verdict), verdict_width), row.verdict);
        columns(&row.cells.iter().map(String::as_str).collect::<Vec<_>>(), &mut line);
        let last = clean(&row.last);
        // What holds a run, or might, is said whole; the rest is for whoever has the room.
        let parts = match row.verdict {
            Some(Verdict::Fail | Verdict::Inconclusive | Verdict::Warn) => {
                folded(&last, width.saturating_sub(before))
            }
            Some(Verdict::Pass | Verdict::Skipped) | None => vec![last],
        };
        let mut parts = parts.iter();
        line.push(&format!("  {}", parts.next().map_or("", String::as_str)), None);
        lines.push(line);
        lines.extend(parts.map(|part| Line::plain(&format!("{:before$}{part}", ""))));
    }
    lines
}

fn verdict_cell(verdict: Option<Verdict>) -> String {
    verdict.map_or_else(|| "· none yet".to_owned(), |verdict| format!("{} {verdict}", sign(verdict)))
}

/// A line of parts, some in the colour of a verdict.
#[derive(Default)]
struct Line(Vec<(String, Option<Verdict>)>);

impl Line {
    fn plain(text: &str) -> Line {
        Line(vec![(clean(text), None)])
    }

    fn push(&mut self, text: &str, verdict: Option<Verdict>) {
        self.0.push((clean(text), verdict));
    }

    fn render(&self, width: usize, colour: bool) -> String {
        let whole: String = self.0.iter().map(|(text, _)| text.as_str()).collect();
        let kept = cut(whole.trim_end(), width);
        let mut line = String::with_capacity(kept.len() + 16);
        let mut rest = kept.as_str();
        for (text, verdict) in &self.0 {
            let end = rest.char_indices().nth(length(text)).map_or(rest.len(), |(end, _)| end);
            let (part, after) = rest.split_at(end);
            match verdict.filter(|_| colour && !part.is_empty()) {
                Some(verdict) => line.push_str(&format!("\x1b[{}m{part}\x1b[0m", ansi(verdict))),
                None => line.push_str(part),
            }
            rest = after;
        }
        line.push('\n');
        line
    }
}

fn ansi(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "32",
        Verdict::Warn => "33",
        Verdict::Fail => "1;31",
        Verdict::Inconclusive => "1;35",
        Verdict::Skipped => "2",
    }
}

/// One line without control characters: what a machine sent must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if is_steering(letter) { ' ' } else { letter }).collect()
}

/// Control characters, and those that turn the direction of writing.
fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// At most `width` characters; where some are left out, the last one is an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The text in lines of at most `width` characters, broken between words; the last of them has the rest, however long.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let is_last = lines.len() == REASON_LINES_MAX;
        let line = lines.last_mut().expect("it begins with one");
        if line.is_empty() || is_last || length(line) + 1 + length(word) <= width {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn padded(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let blanks = " ".repeat(width - length(&text));
    text + &blanks
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::{Limit, Observation};

    use super::*;
    use crate::sample::sample;

    #[test]
    fn a_report_reads_from_the_worst_down() {
        let wanted = "\
✗ fail  rack1-node7, profile storage-2s, run r-7f3k9q2m: FailedHolding
stage CPUStress failed: 2 miscompares, expected at most 0

VERDICT     STAGE         TIME                        WHAT IT SAYS
✓ pass      Inventory     5.0 s
! warn      SpecValidate  0.0 s
! warn      SMART         12.0 s                      overridden: known good, firmware words it
                                                      otherwise (ops-1187)
✗ fail      CPUStress     10 min 2 s  attempt 2 of 2  stress-ng ended with exit code 2
· none yet  Reporting
";
        let text = render_text(&sample(), 100, false);
        assert!(text.starts_with(wanted), "{text}");
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in\n{text}"));
        assert!(at("2 miscompares, expected at most 0") < at("scaling_cur_freq of cpu7"));
        assert!(at("scaling_cur_freq of cpu7") < at("disk Y3C0A01XTKL8 was not expected"));
        assert!(at("disk Y3C0A01XTKL8 was not expected") < at("the machine names no power supply"));
        assert!(text.contains("8 of 14 checks passed."), "{text}");
        assert!(text.contains("Not in the log: stream 3f"), "{text}");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = render_text(&sample(), 120, false);
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("VERDICT")).collect();
        assert_eq!(heads.len(), 2);
        let column = |line: &str, part: &str| line.find(part).map(|at| length(&line[..at]));
        let row = text.lines().find(|line| line.contains("frequency")).unwrap();
        for (head, cell) in
            [("STAGE", "CPUStress"), ("CHECK", "frequency"), ("COMPONENT", "cpu"), ("WHY", "scaling")]
        {
            assert_eq!(column(heads[1], head), column(row, cell), "{text}");
        }
    }

    #[test]
    fn every_line_fits_and_is_cut_between_characters() {
        let mut report = sample();
        report.reason = "ä€😀".repeat(200);
        report.stages[0].checks[0].reason = "日本語".repeat(300);
        for width in [0, 20, 33, 60, 80, 100, 200, 10_000] {
            let text = render_text(&report, width, false);
            for line in text.lines() {
                assert!(length(line) <= width.max(WIDTH_MIN), "{width}: {line}");
            }
            assert!(!text.contains('\u{1b}'));
        }
        assert!(render_text(&report, 60, false).lines().any(|line| line.ends_with('…')));
    }

    #[test]
    fn what_holds_a_run_is_said_whole_on_a_narrow_terminal() {
        let mut report = sample();
        let reason = "the result of worker 3 is wrong, 12 miscompares in 40 s, expected at most 0: change the CPU or its board";
        let check = report.stages.iter_mut().flat_map(|stage| &mut stage.checks);
        let check = check.into_iter().find(|check| check.verdict == Verdict::Fail).unwrap();
        reason.clone_into(&mut check.reason);
        reason.clone_into(&mut report.reason);
        let text = render_text(&report, 80, false);
        let words: Vec<&str> = text.split_whitespace().collect();
        let wanted: Vec<&str> = reason.split_whitespace().collect();
        assert!(words.windows(wanted.len()).any(|window| window == wanted), "{text}");
        // In the table each word comes in its turn, in the column of reasons.
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.contains("WHY")).collect();
        let column = length(&rows[0][..rows[0].find("WHY").unwrap()]);
        let from = rows.iter().position(|row| row.contains("the result of")).unwrap();
        let told: Vec<String> = rows[from..].iter().map(|row| row.chars().skip(column).collect()).collect();
        assert!(told.join(" ").starts_with(reason), "{text}");
        let page = folded(&"word ".repeat(10_000), 20);
        assert_eq!((page.len(), folded("", 20)), (REASON_LINES_MAX, vec![String::new()]));
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = render_text(&sample(), 80, true);
        assert!(coloured.contains("\x1b[1;31m✗ fail"), "{coloured}");
        let mut plain = String::new();
        for (index, part) in coloured.split('\x1b').enumerate() {
            plain.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
        }
        assert_eq!(plain, render_text(&sample(), 80, false));
    }

    #[test]
    fn nothing_from_a_machine_steers_the_terminal() {
        let mut report = sample();
        report.reason = "a\x1b[2Jb\r\n\u{9b}31m\u{202e}c".to_owned();
        report.stages[3].message = "\x1b]0;title\x07".to_owned();
        report.stages[3].checks[0].component = Some("x\ny".to_owned());
        let text = render_text(&report, 100, false);
        assert!(text.chars().all(|letter| letter == '\n' || !is_steering(letter)), "{text:?}");
    }

    #[test]
    fn what_every_stage_skips_for_one_reason_is_said_once() {
        let mut report = sample();
        let skipped = Observation::Absent { why: "the machine has no BMC".into() };
        let check = Check::of("sel_events", None, skipped, Limit::default());
        let failed =
            Check::of("sel_events", None, Observation::Missing { what: "it".into() }, Limit::default());
        for stage in report.stages.iter_mut().take(3) {
            stage.checks.extend([check.clone(), failed.clone()]);
        }
        let text = render_text(&report, 120, false);
        let of = |verdict: &str| {
            text.lines().filter(|line| line.contains(verdict) && line.contains("sel_events")).count()
        };
        assert_eq!((of("3 stages"), of("skipped"), of("fail")), (1, 1, 3), "{text}");
    }
}
