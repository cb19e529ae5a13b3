//! Sensors over time as inline SVG: one plot for each kind, one line for each sensor, the stages as bands.

use std::collections::BTreeMap;

use groundcrew_protocol::limits::SENSOR_INTERVAL_MS;
use groundcrew_protocol::order;
use groundcrew_protocol::report::{Report, SensorSeries};
use maud::{Markup, html};

use crate::words::{counted, duration};

/// Width of a drawing in its own units; the page scales it.
const WIDTH: f64 = 960.0;
/// Room for the values left of the plot, and for the last tick's text right of it.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
/// Room for names of stages above and for times below.
const TOP: f64 = 24.0;
const BOTTOM: f64 = 40.0;
/// Height of the plot of temperatures, and of the others.
const HEIGHT: f64 = 340.0;
const HEIGHT_SMALL: f64 = 200.0;
/// Points of a line beyond which several share a column: the highest and the lowest of each stay.
const POINTS_MAX: usize = 800;
/// Readings that may be missing before a line is broken.
const INTERVALS_MISSED_MAX: f64 = 4.0;
/// Average width of a letter of a stage's name.
const LETTER_WIDTH: f64 = 6.6;
/// Colours, and dashes for sensors beyond them.
const COLOURS: usize = 8;
const DASHES: usize = 4;
/// Greater values are drawn as this one: no sensor has them, and differences of them must stay finite.
const VALUE_MAX: f64 = 1e12;
/// The kind that comes first and largest.
const TEMPERATURE: &str = "temperature";

/// All plots, temperatures first; a sentence where there is nothing to draw.
pub(crate) fn plots(report: &Report) -> Markup {
    let kinds = kinds(&report.sensors);
    html! {
        @if kinds.is_empty() {
            p { "No sensors on this machine: no temperature, fan or power was read while the stages ran." }
        } @else if !kinds.keys().any(|(_, kind, _)| *kind == TEMPERATURE) {
            p { "No temperature sensors on this machine." }
        }
        @for ((_, kind, unit), series) in &kinds { (figure(kind, unit, series, report)) }
    }
}

/// Series that have something to draw, by kind and unit.
fn kinds(sensors: &[SensorSeries]) -> BTreeMap<(bool, &str, &str), Vec<Series<'_>>> {
    let mut kinds: BTreeMap<_, Vec<Series<'_>>> = BTreeMap::new();
    for sensor in sensors {
        let points: Vec<(f64, f64)> = sensor
            .points
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(at, value)| (at.0 as f64, value.clamp(-VALUE_MAX, VALUE_MAX)))
            .collect();
        if !points.is_empty() {
            let key = (sensor.kind != TEMPERATURE, sensor.kind.as_str(), sensor.unit.as_str());
            kinds.entry(key).or_default().push(Series { key: &sensor.key, points });
        }
    }
    kinds
}

struct Series<'r> {
    key: &'r str,
    /// Milliseconds of wall time and value; never empty.
    points: Vec<(f64, f64)>,
}

impl Series<'_> {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().map(|(_, value)| *value)
    }

    fn lowest(&self) -> f64 {
        self.values().fold(f64::INFINITY, f64::min)
    }

    fn highest(&self) -> f64 {
        self.values().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Where times and values lie in the drawing.
struct Scale {
    height: f64,
    /// First and last moment; the second is later.
    times: (f64, f64),
    /// Lowest and highest value; the second is greater.
    values: (f64, f64),
}

impl Scale {
    fn of(series: &[Series<'_>], height: f64) -> Scale {
        let times = || series.iter().flat_map(|one| one.points.iter().map(|(at, _)| *at));
        let first = times().fold(f64::INFINITY, f64::min);
        let last = times().fold(f64::NEG_INFINITY, f64::max);
        let lowest = series.iter().map(Series::lowest).fold(f64::INFINITY, f64::min);
        let highest = series.iter().map(Series::highest).fold(f64::NEG_INFINITY, f64::max);
        // A single moment or value gets some room, so that nothing is divided by zero.
        let last = last.max(first + 1000.0);
        let slack = ((highest - lowest) * 0.08).max(highest.abs().max(1.0) * 0.01);
        let floor = if lowest >= 0.0 { (lowest - slack).max(0.0) } else { lowest - slack };
        Scale { height, times: (first, last), values: (floor, highest + slack) }
    }

    fn x(&self, at: f64) -> f64 {
        let share = (at - self.times.0) / (self.times.1 - self.times.0);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value - self.values.0) / (self.values.1 - self.values.0);
        self.bottom() - share * (self.bottom() - TOP)
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }
}

fn figure(kind: &str, unit: &str, series: &[Series<'_>], report: &Report) -> Markup {
    let scale = Scale::of(series, if kind == TEMPERATURE { HEIGHT } else { HEIGHT_SMALL });
    let lowest = series.iter().map(Series::lowest).fold(f64::INFINITY, f64::min);
    let highest = series.iter().map(Series::highest).fold(f64::NEG_INFINITY, f64::max);
    let title = format!("{} over time", capital(kind));
    let about = format!(
        "{} from {} to {} {unit} over {}, with a band for each stage.",
        counted(series.len(), "sensor"),
        short(lowest),
        short(highest),
        duration((scale.times.1 - scale.times.0) as i64),
    );
    html! {
        figure {
            figcaption { strong { (capital(kind)) } " in " (unit) ", " (about) }
            div.scroll.plot tabindex="0" role="group" aria-label=(title) {
                svg viewBox={ "0 0 " (WIDTH) " " (scale.height) } role="img" {
                    title { (title) }
                    desc { (about) }
                    (bands(&scale, report))
                    (value_axis(&scale, unit))
                    (time_axis(&scale))
                    @for (index, one) in series.iter().enumerate() {
                        @let points = thinned(&one.points);
                        @let class = class(index);
                        path class=(class) d=(path(&scale, &points)) { title { (one.key) } }
                    }
                }
            }
            (legend(series, unit))
        }
    }
}

fn legend(series: &[Series<'_>], unit: &str) -> Markup {
    html! {
        ul.legend {
            @for (index, one) in series.iter().enumerate() {
                li {
                    svg viewBox="0 0 28 10" aria-hidden="true" { path class=(class(index)) d="M1,5 L27,5" {} }
                    (one.key)
                    span.soft { " " (short(one.lowest())) "–" (short(one.highest())) " " (unit) }
                }
            }
        }
    }
}

/// The stages that overlap the plot, each a band with its name where there is room for it.
fn bands(scale: &Scale, report: &Report) -> Markup {
    let began = report.stages.iter().filter_map(|stage| Some((stage, stage.began?.0 as f64)));
    let bands = began
        .map(|(stage, began)| (stage, began, stage.ended.map_or(scale.times.1, |ended| ended.0 as f64)))
        .filter(|(_, began, ended)| *ended > scale.times.0 && *began < scale.times.1 && ended > began);
    html! {
        @for (index, (stage, began, ended)) in bands.enumerate() {
            @let (left, right) = (scale.x(began), scale.x(ended));
            @let name = stage.stage.to_string();
            g {
                title { (name) }
                rect class=(if index % 2 == 0 { "band even" } else { "band" }) x=(at(left)) y=(at(TOP))
                    width=(at(right - left)) height=(at(scale.bottom() - TOP)) {}
                @if name.chars().count() as f64 * LETTER_WIDTH < right - left {
                    text.stage x=(at((left + right) / 2.0)) y=(at(TOP - 8.0)) text-anchor="middle" { (name) }
                } @else if right - left > 12.0 {
                    @let middle = (left + right) / 2.0 + 4.0;
                    text.stage text-anchor="end"
                        transform={ "translate(" (at(middle)) "," (at(TOP + 6.0)) ") rotate(-90)" } { (name) }
                }
            }
        }
    }
}

fn value_axis(scale: &Scale, unit: &str) -> Markup {
    html! {
        @for value in ticks(scale.values, if scale.height < HEIGHT { 5.0 } else { 7.0 }) {
            @let y = at(scale.y(value));
            line.grid x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(y) y2=(y) {}
            text x=(at(LEFT - 8.0)) y=(at(scale.y(value) + 4.0)) text-anchor="end" { (short(value)) }
        }
        text x="4" y=(at(TOP - 8.0)) { (unit) }
    }
}

/// Time since the first reading.
fn time_axis(scale: &Scale) -> Markup {
    let seconds = (scale.times.1 - scale.times.0) / 1000.0;
    let step = time_step(seconds);
    let (unit, divisor) = match step {
        step if step >= 86_400.0 => ("d", 86_400.0),
        step if step >= 3_600.0 => ("h", 3_600.0),
        step if step >= 60.0 => ("min", 60.0),
        _ => ("s", 1.0),
    };
    let bottom = scale.bottom();
    html! {
        line.axis x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(bottom)) y2=(at(bottom)) {}
        @for tick in multiples(0.0, seconds, step) {
            @let x = scale.x(scale.times.0 + tick * 1000.0);
            line.axis x1=(at(x)) x2=(at(x)) y1=(at(bottom)) y2=(at(bottom + 5.0)) {}
            text x=(at(x)) y=(at(bottom + 19.0)) text-anchor="middle" { (short(tick / divisor)) }
        }
        text x=(at(WIDTH - RIGHT)) y=(at(bottom + 35.0)) text-anchor="end" { (unit) " since the first reading" }
    }
}

/// A step of seconds, minutes, hours or days that makes about eight ticks.
fn time_step(seconds: f64) -> f64 {
    let steps = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
        14_400.0, 28_800.0, 43_200.0, 86_400.0,
    ];
    let wanted = seconds / 8.0;
    steps.into_iter().find(|step| *step >= wanted).unwrap_or_else(|| (wanted / 86_400.0).ceil() * 86_400.0)
}

/// Round values between two bounds, about `count` of them.
fn ticks((low, high): (f64, f64), count: f64) -> Vec<f64> {
    let rough = (high - low) / count;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|step| *step >= rough);
    multiples(low, high, step.unwrap_or(rough))
}

/// The multiples of a step from `low` to `high`; at most a hundred, whatever the numbers are.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let first = (low / step).ceil();
    (0..100).map(|n| (first + f64::from(n)) * step).take_while(|value| *value <= high).collect()
}

/// The points, or the highest and the lowest of each column where there are more than a plot can show.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let mut kept = Vec::with_capacity(POINTS_MAX + 2);
    for column in points.chunks(points.len().div_ceil(POINTS_MAX / 2)) {
        let ends = [column.iter().min_by(by_value), column.iter().max_by(by_value)];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        order::sort_by(&mut ends, |a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

/// A path through the points, broken where readings are missing.
fn path(scale: &Scale, points: &[(f64, f64)]) -> String {
    let span = points.last().map_or(0.0, |last| last.0) - points.first().map_or(0.0, |first| first.0);
    let usual = span / points.len().max(1) as f64;
    let gap = INTERVALS_MISSED_MAX * usual.max(SENSOR_INTERVAL_MS as f64);
    let mut path = String::new();
    let mut before: Option<f64> = None;
    for (moment, value) in points {
        let (x, y) = (at(scale.x(*moment)), at(scale.y(*value)));
        match before {
            Some(before) if moment - before <= gap => path.push_str(&format!(" L{x},{y}")),
            // A line of no length draws a dot, so that a lone reading is seen.
            Some(_) | None => path.push_str(&format!(" M{x},{y} L{x},{y}")),
        }
        before = Some(*moment);
    }
    path.trim_start().to_owned()
}

fn class(index: usize) -> String {
    format!("line c{} d{}", index % COLOURS, index / COLOURS % DASHES)
}

/// A coordinate to a tenth of a unit.
fn at(coordinate: f64) -> String {
    short_to(coordinate, 1)
}

/// A value with at most two digits after the point.
fn short(value: f64) -> String {
    short_to(value, if value.abs() < 10.0 { 2 } else { 1 })
}

fn short_to(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::time::WallMs;

    use super::*;
    use crate::sample::{BEGAN, sample};

    fn series(kind: &str, key: &str, points: Vec<(WallMs, f64)>) -> SensorSeries {
        SensorSeries { kind: kind.to_owned(), key: key.to_owned(), unit: "°C".to_owned(), points }
    }

    fn drawn(sensors: Vec<SensorSeries>) -> String {
        let report = Report { sensors, ..sample() };
        plots(&report).into_string()
    }

    #[test]
    fn each_kind_has_a_plot_and_each_sensor_a_line() {
        let page = plots(&sample()).into_string();
        assert_eq!(page.matches("<figure>").count(), 3);
        assert_eq!(page.matches("role=\"img\"").count(), 3);
        // Six sensors, each with a line and its mark in the legend.
        assert_eq!(page.matches("class=\"line c").count(), 12);
        assert!(page.find("Temperature over time") < page.find("Fan over time"));
        assert!(page.find("Fan over time") < page.find("Power over time"));
        for text in
            ["°C", "rpm", ">W<", "min since the first reading", ">CPUStress<", "k10temp Tctl (socket 0)"]
        {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn without_sensors_there_is_a_sentence_and_no_plot() {
        for sensors in [Vec::new(), vec![series("temperature", "a", Vec::new())]] {
            let page = drawn(sensors);
            assert!(page.contains("No sensors on this machine") && !page.contains("<svg"), "{page}");
        }
        let nan = vec![series("temperature", "a", vec![(WallMs(BEGAN), f64::NAN)])];
        assert!(drawn(nan).contains("No sensors on this machine"));
        let fan = drawn(vec![series("fan", "a", vec![(WallMs(BEGAN), 1.0)])]);
        assert!(fan.contains("No temperature sensors on this machine") && fan.contains("<svg"));
    }

    #[test]
    fn odd_numbers_draw_a_finite_path() {
        let at = |ms: i64| WallMs(ms);
        for points in [
            vec![(at(BEGAN), 0.0)],
            vec![(at(BEGAN), 40.0), (at(BEGAN), 40.0)],
            vec![(at(i64::MIN), -1e300), (at(i64::MAX), 1e300)],
            vec![(at(0), -5.0), (at(1), f64::MIN_POSITIVE)],
            vec![(at(0), f64::MAX), (at(1), f64::MIN)],
        ] {
            let page = drawn(vec![series("temperature", "a", points.clone())]);
            let path = page.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
            let numbers = path.split(|c: char| " ,ML".contains(c)).filter(|part| !part.is_empty());
            let numbers: Vec<f64> = numbers.map(|number| number.parse().unwrap()).collect();
            assert!(numbers.len() >= 4 && numbers.iter().all(|n| (0.0..=WIDTH).contains(n)), "{path}");
            assert!(page.matches("<text").count() < 300, "{points:?}");
        }
    }

    #[test]
    fn a_line_breaks_where_readings_are_missing() {
        let page = drawn(sample().sensors.into_iter().take(1).collect());
        let path = page.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }

    #[test]
    fn thinning_keeps_the_highest_and_the_lowest() {
        let mut points: Vec<(f64, f64)> = (0..2000).map(|n| (f64::from(n) * 5000.0, 50.0)).collect();
        (points[777].1, points[1234].1) = (99.0, 1.0);
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS_MAX + 2 && kept.contains(&points[777]) && kept.contains(&points[1234]));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((32.0, 84.0), 7.0), [40.0, 50.0, 60.0, 70.0, 80.0]);
        assert_eq!(ticks((0.0, 1.0), 4.0), [0.0, 0.5, 1.0]);
        assert_eq!(time_step(60.0), 10.0);
        assert_eq!(time_step(640.0), 120.0);
        assert_eq!(time_step(86_400.0 * 30.0), 4.0 * 86_400.0);
    }
}
