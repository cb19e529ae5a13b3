//! What was measured: figures, each beside its limit and its target, as a table, as JSON and as Markdown.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::machine::Machine;

/// Width of the table where it is not for a terminal, which has its own.
const COLUMNS: u16 = 150;

/// Everything that one run of the benchmark found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Version of what was measured.
    pub version: String,
    /// How: rounds, seconds, connections.
    pub how: String,
    /// What.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// The median of all rounds.
    pub value: f64,
    /// The lowest and the highest of them.
    pub spread: (f64, f64),
    /// A limit, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
    /// What was wished for.
    pub targets: Vec<Target>,
}

/// A limit, measured in the same run.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// What was measured.
    pub name: String,
    /// The median of all rounds.
    pub value: f64,
    /// The lowest and the highest of them.
    pub spread: (f64, f64),
    /// The figure as a part of its limit: the median over rounds that followed each other, or that of the lowest.
    pub ratio: f64,
}

/// A target and whether it was met.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// In words.
    pub text: String,
    /// Whether.
    pub met: bool,
}

impl Figure {
    /// A figure of several rounds.
    pub fn new(name: &str, unit: &'static str, rounds: &[f64]) -> Figure {
        let (value, spread) = (median(rounds), spread(rounds));
        Figure { name: name.to_owned(), unit, value, spread, beside: None, targets: Vec::new() }
    }

    /// Beside a limit whose rounds took turns with its own, given as (own, limit).
    #[must_use]
    pub fn beside(mut self, name: &str, rounds: &[(f64, f64)]) -> Figure {
        let limits: Vec<f64> = rounds.iter().map(|(_own, limit)| *limit).collect();
        let ratios: Vec<f64> = rounds.iter().map(|(own, limit)| own / limit).collect();
        let (value, spread, ratio) = (median(&limits), spread(&limits), median(&ratios));
        self.beside = Some(Beside { name: name.to_owned(), value, spread, ratio });
        self
    }

    /// As [`Figure::beside`], where less is better and both only ever lose to what else the machine does: the ratio is
    /// that of the two lowest.
    #[must_use]
    pub fn beside_by_minima(self, name: &str, rounds: &[(f64, f64)]) -> Figure {
        let mut figure = self.beside(name, rounds);
        if let Some(beside) = &mut figure.beside {
            beside.ratio = figure.spread.0 / beside.spread.0;
        }
        figure
    }

    /// With the target to take at most this many times the limit.
    #[must_use]
    pub fn at_most_of_limit(mut self, times: f64) -> Figure {
        let met = self.beside.as_ref().is_some_and(|beside| beside.ratio <= times);
        self.targets.push(Target { text: format!("at most {} times the limit", number(times)), met });
        self
    }

    /// With the target to reach this value.
    #[must_use]
    pub fn at_least(mut self, bound: f64) -> Figure {
        let text = format!("at least {}", number(bound));
        self.targets.push(Target { text, met: self.value >= bound });
        self
    }

    /// With the target to stay under this value.
    #[must_use]
    pub fn under(mut self, bound: f64) -> Figure {
        self.targets.push(Target { text: format!("under {}", number(bound)), met: self.value < bound });
        self
    }

    /// With the target to stay under this value in every round.
    #[must_use]
    pub fn highest_under(mut self, bound: f64) -> Figure {
        let text = format!("under {} each time", number(bound));
        self.targets.push(Target { text, met: self.spread.1 < bound });
        self
    }

    /// With the target to reach a part of the limit, named in words.
    #[must_use]
    pub fn at_least_of_limit(mut self, part: f64, words: &str) -> Figure {
        let met = self.beside.as_ref().is_some_and(|beside| beside.ratio >= part);
        self.targets.push(Target { text: format!("at least {words} of the limit"), met });
        self
    }

    fn shown(&self) -> String {
        shown(self.value, self.spread)
    }

    fn shown_targets(&self) -> String {
        let said =
            |target: &Target| format!("{}: {}", target.text, if target.met { "met" } else { "MISSED" });
        self.targets.iter().map(said).collect::<Vec<_>>().join("; ")
    }

    fn shown_limit(&self) -> (String, String) {
        match &self.beside {
            None => (String::new(), String::new()),
            Some(beside) => {
                let limit = format!("{}: {}", beside.name, shown(beside.value, beside.spread));
                (limit, format!("{:.2}", beside.ratio))
            }
        }
    }
}

impl Report {
    /// A table for a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        if !table.is_tty() {
            table.set_width(COLUMNS);
        }
        table.set_header([
            "Measured",
            "Median (lowest to highest)",
            "Limit in the same run",
            "Ratio",
            "Target",
        ]);
        for figure in &self.figures {
            let (limit, ratio) = figure.shown_limit();
            table.add_row([
                Cell::new(format!("{}, {}", figure.name, figure.unit)),
                Cell::new(figure.shown()).set_alignment(CellAlignment::Right),
                Cell::new(limit),
                Cell::new(ratio).set_alignment(CellAlignment::Right),
                Cell::new(figure.shown_targets()),
            ]);
        }
        let Report { machine, version, how, .. } = self;
        format!("Groundcrew {version} on {}\n{how}\n{table}\n{}\n", machine.describe(), self.verdict())
    }

    /// For a README.
    pub fn markdown(&self) -> String {
        let Report { machine, version, how, .. } = self;
        let mut text = format!("Groundcrew {version} on {}. {how}\n\n", machine.describe());
        text += "| Measured | Median (lowest to highest) | Limit in the same run | Ratio | Target |\n";
        text += "| --- | ---: | --- | ---: | --- |\n";
        for figure in &self.figures {
            let (limit, ratio) = figure.shown_limit();
            let (name, unit, value, targets) =
                (&figure.name, figure.unit, figure.shown(), figure.shown_targets());
            text += &format!("| {name}, {unit} | {value} | {limit} | {ratio} | {targets} |\n");
        }
        text
    }

    fn verdict(&self) -> String {
        let targets: Vec<&Target> = self.figures.iter().flat_map(|figure| &figure.targets).collect();
        let met = targets.iter().filter(|target| target.met).count();
        format!("{met} of {} targets met", targets.len())
    }
}

/// The middle value, or the mean of the two in the middle. NaN for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn spread(values: &[f64]) -> (f64, f64) {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    (lowest, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

fn shown(value: f64, (lowest, highest): (f64, f64)) -> String {
    if lowest == highest {
        return number(value);
    }
    format!("{} ({} to {})", number(value), number(lowest), number(highest))
}

/// Three significant digits at least, and commas between thousands.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (value, text) in [
            (0.5, "0.5"),
            (7.0, "7"),
            (5.81, "5.81"),
            (31.44, "31.4"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(-1234.0), "-1,234");
    }

    #[test]
    fn a_figure_is_the_median_and_its_ratio_that_of_rounds_which_followed_each_other() {
        let pairs = [(10.0, 20.0), (30.0, 30.0), (11.0, 22.0)];
        let figure = Figure::new("x", "y", &[10.0, 30.0, 11.0]).beside("z", &pairs);
        assert_eq!((figure.value, figure.spread), (11.0, (10.0, 30.0)));
        assert_eq!(figure.beside.as_ref().unwrap().ratio, 0.5);
        let met = |figure: &Figure| figure.targets.iter().map(|target| target.met).collect::<Vec<_>>();
        assert_eq!(
            met(&figure.clone().at_least_of_limit(0.5, "half").at_least(11.0).under(11.0)),
            [true, true, false]
        );
        assert_eq!(
            met(&figure.at_least_of_limit(0.51, "51 %").at_least(11.1).under(11.1)),
            [false, false, true]
        );
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        let figure =
            Figure::new("x", "y", &[10.0, 30.0, 11.0]).beside_by_minima("z", &[(10.0, 9.0), (30.0, 8.0)]);
        assert_eq!(figure.beside.as_ref().unwrap().ratio, 1.25);
        assert_eq!(met(&figure.at_most_of_limit(1.25).at_most_of_limit(1.2)), [true, false]);
    }

    #[test]
    fn every_rendering_names_figure_limit_target_and_machine() {
        let folder = tempfile::tempdir().unwrap();
        let figure = Figure::new("beats", "per second", &[5.0]).beside("bare", &[(5.0, 20.0)]);
        let report = Report {
            machine: Machine::look(folder.path()).unwrap(),
            version: "1.2.3".to_owned(),
            how: "3 rounds.".to_owned(),
            figures: vec![figure.at_least_of_limit(0.5, "half")],
        };
        let json = serde_json::to_string(&report).unwrap();
        for text in [report.table(), report.markdown()] {
            for part in ["beats, per second", "bare: 20", "0.25", "MISSED", "1.2.3", "3 rounds", "Linux"] {
                assert!(text.contains(part), "{part} is missing in {text}");
            }
        }
        assert!(json.contains("\"met\":false") && json.contains("\"ratio\":0.25"), "{json}");
        assert!(report.table().contains("0 of 1 targets met"));
    }
}
