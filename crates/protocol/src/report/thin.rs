//! Readings into series, thinned while they come: what is kept does not grow with what is read.

use std::collections::BTreeMap;

use super::SensorSeries;
use crate::order;
use crate::time::WallMs;
use crate::wire::SensorSample;

/// Greatest number of points of a series in a report: more than a plot has pixels.
pub const SERIES_POINTS_MAX: usize = 2_000;
/// Greatest number of points of all series together: a hundred sensors at their greatest number.
pub const POINTS_MAX: usize = 200_000;
/// Greatest number of series: the channels of a large machine, several times over.
pub const SERIES_MAX: usize = 2_048;

/// Sorts samples into series, thinned so that the highest of each bucket stays: a report must not lose a peak.
pub fn series_of(samples: impl IntoIterator<Item = SensorSample>) -> Vec<SensorSeries> {
    let mut thinner = Thinner::default();
    for sample in samples {
        thinner.push(sample);
    }
    thinner.finish().0
}

/// Takes samples one by one and keeps at most [`SERIES_POINTS_MAX`] points of each series, fewer where there are many
/// series, twice as many while it goes on.
#[derive(Debug, Default)]
pub struct Thinner {
    series: BTreeMap<(String, String), Growing>,
    left_out: u64,
}

impl Thinner {
    /// Takes a sample.
    pub fn push(&mut self, sample: SensorSample) {
        let key = (sample.kind, sample.key);
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let points_max = points_max(self.series.len());
        let growing = self.series.entry(key).or_insert_with(|| Growing::new(sample.unit));
        growing.push((sample.ts, sample.value), points_max);
    }

    /// The series in order of kind and key, and how many samples belong to series beyond [`SERIES_MAX`].
    pub fn finish(self) -> (Vec<SensorSeries>, u64) {
        let points_max = points_max(self.series.len());
        let series = self.series.into_iter().map(|((kind, key), growing)| {
            let (unit, points) = growing.finish(points_max);
            SensorSeries { kind, key, unit, points }
        });
        (series.collect(), self.left_out)
    }
}

/// Points of each series where there are so many of them.
fn points_max(series: usize) -> usize {
    (POINTS_MAX / series.max(1)).min(SERIES_POINTS_MAX)
}

/// A series on its way.
#[derive(Debug)]
struct Growing {
    unit: String,
    /// The highest of each full bucket, and of the one that is being filled, which is the last.
    points: Vec<(WallMs, f64)>,
    /// Samples in a bucket.
    bucket: u64,
    /// Samples in the last one.
    filled: u64,
}

impl Growing {
    fn new(unit: String) -> Growing {
        Growing { unit, points: Vec::new(), bucket: 1, filled: 1 }
    }

    fn push(&mut self, point: (WallMs, f64), points_max: usize) {
        match self.points.last_mut() {
            Some(last) if self.filled < self.bucket => {
                self.filled += 1;
                *last = higher(*last, point);
            }
            Some(_) | None => {
                if self.points.len() >= 2 * points_max {
                    self.points = halved(&self.points);
                    self.bucket *= 2;
                }
                self.filled = 1;
                self.points.push(point);
            }
        }
    }

    fn finish(self, points_max: usize) -> (String, Vec<(WallMs, f64)>) {
        let mut points = self.points;
        // Streams of two processes may come one over the other.
        order::sort_by_key(&mut points, |(at, _)| *at);
        let bucket = points.len().div_ceil(points_max).max(1);
        let points = points.chunks(bucket).filter_map(|chunk| chunk.iter().copied().reduce(higher));
        (self.unit, points.collect())
    }
}

fn halved(points: &[(WallMs, f64)]) -> Vec<(WallMs, f64)> {
    points.chunks(2).filter_map(|pair| pair.iter().copied().reduce(higher)).collect()
}

fn higher(a: (WallMs, f64), b: (WallMs, f64)) -> (WallMs, f64) {
    if b.1.total_cmp(&a.1).is_ge() { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(key: &str, at: i64, value: f64) -> SensorSample {
        SensorSample {
            kind: "temperature".into(), key: key.into(), value, unit: "°C".into(), ts: WallMs(at)
        }
    }

    #[test]
    fn thinning_keeps_the_peak_and_the_ends() {
        let value = |at: i64| if at == 31_337 { 99.0 } else { 40.0 };
        let series = series_of((0..50_000).map(|at| sample("cpu", at, value(at))));
        assert_eq!(series.len(), 1);
        let points = &series[0].points;
        assert!((500..=SERIES_POINTS_MAX).contains(&points.len()), "{}", points.len());
        assert!(points.contains(&(WallMs(31_337), 99.0)));
        assert!(points[0].0.0 < 200 && points.last().unwrap().0.0 > 49_800);
        assert!(points.is_sorted_by_key(|(at, _)| *at));
        // A few are kept as they are, in order of time.
        let few = series_of([5, 3, 9].map(|at| sample("cpu", at, at as f64)));
        assert_eq!(few[0].points, [3, 5, 9].map(|at| (WallMs(at), at as f64)));
    }

    #[test]
    fn what_is_kept_does_not_grow_with_what_is_read() {
        let mut thinner = Thinner::default();
        let kept = |thinner: &Thinner| thinner.series.values().map(|one| one.points.len()).sum::<usize>();
        for at in 0..20_000 {
            for sensor in 0..150 {
                thinner.push(sample(&sensor.to_string(), at, 1.0));
            }
        }
        assert!(kept(&thinner) <= 2 * POINTS_MAX, "{}", kept(&thinner));
        let (series, left_out) = thinner.finish();
        assert_eq!((series.len(), left_out), (150, 0));
        assert!(series.iter().map(|one| one.points.len()).sum::<usize>() <= POINTS_MAX);
        // More sensors than any machine has are counted, not kept.
        let mut thinner = Thinner::default();
        for sensor in 0..SERIES_MAX + 7 {
            thinner.push(sample(&sensor.to_string(), 0, 1.0));
        }
        let (series, left_out) = thinner.finish();
        assert_eq!((series.len(), left_out), (SERIES_MAX, 7));
    }
}
