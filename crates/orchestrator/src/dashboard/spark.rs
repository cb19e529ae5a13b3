//! Readings of a sensor as a small line.

use groundcrew_protocol::report::SensorSeries;
use maud::{Markup, html};

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 36.0;

/// The line with its name, its lowest and its highest value. Nothing where there are fewer than two readings.
pub fn line(series: &SensorSeries) -> Option<Markup> {
    let (first, last) = (series.points.first()?, series.points.last()?);
    let span = (last.0.0 - first.0.0) as f64;
    if span <= 0.0 {
        return None;
    }
    let low = series.points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = series.points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let rise = (high - low).max(f64::EPSILON);
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(at, value)| {
            let x = (at.0 - first.0.0) as f64 / span * WIDTH;
            let y = HEIGHT - (value - low) / rise * HEIGHT;
            format!("{x:.1},{y:.1}")
        })
        .collect();
    Some(html! {
        figure {
            svg viewBox={ "0 -2 " (WIDTH) " " (HEIGHT + 4.0) } width=(WIDTH) height=(HEIGHT + 4.0) role="img" {
                polyline points=(points.join(" ")) {}
            }
            figcaption { (series.key) ": " (format!("{low:.1} to {high:.1}")) " " (series.unit) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundcrew_protocol::time::WallMs;

    #[test]
    fn a_line_stays_in_its_frame() {
        let series = |points: Vec<(WallMs, f64)>| SensorSeries {
            kind: "temperature".into(),
            key: "cpu <1>".into(),
            unit: "°C".into(),
            points,
        };
        assert!(line(&series(vec![(WallMs(5), 40.0)])).is_none());
        assert!(line(&series(Vec::new())).is_none());
        let drawn = line(&series(vec![(WallMs(0), 40.0), (WallMs(10), 90.0), (WallMs(20), 40.0)])).unwrap();
        let drawn = drawn.into_string();
        assert!(drawn.contains("0.0,36.0 120.0,0.0 240.0,36.0"), "{drawn}");
        assert!(drawn.contains("cpu &lt;1&gt;"), "{drawn}");
        // A flat line divides by nothing.
        assert!(line(&series(vec![(WallMs(0), 40.0), (WallMs(10), 40.0)])).is_some());
    }
}
