//! Rounds: every lane asks as fast as it is answered, and what was answered within the window is counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use super::connection::{Answer, Connection};

/// What one lane asks.
pub trait Work: Send + 'static {
    /// The next request; nothing where there is no more to ask.
    fn request(&mut self) -> Option<&[u8]>;

    /// Looks at the answer, which must be what the measurement is about.
    ///
    /// # Errors
    /// Where it is anything else: what was counted then would not be what the figure says.
    fn answered(&mut self, answer: Answer<'_>) -> Result<()>;
}

/// A connection and what it asks.
pub struct Lane<W> {
    /// The connection.
    pub connection: Connection,
    /// What it asks.
    pub work: W,
}

/// How long a round lasts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Not counted: caches and buffers find their size.
    pub warm_up: Duration,
    /// Counted.
    pub counted: Duration,
}

/// What came of a round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Answers within the window.
    pub answers: u64,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// How long each took, in microseconds, in ascending order.
    pub latencies_us: Vec<u32>,
}

impl Round {
    /// Answers per second.
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.seconds
    }

    /// The latency that this share of the answers stayed within, in microseconds.
    pub fn percentile_us(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.latencies_us.get(index).copied().map_or(f64::NAN, f64::from)
    }
}

/// Drives all lanes for a window. They come back with their connections open.
pub async fn run_round<W: Work>(lanes: &mut Vec<Lane<W>>, window: Window) -> Result<Round> {
    let begins = Instant::now() + window.warm_up;
    let ends = begins + window.counted;
    let mut running = JoinSet::new();
    for (index, lane) in lanes.drain(..).enumerate() {
        running.spawn(async move { (index, run_lane(lane, begins, ends).await) });
    }
    let mut back = Vec::with_capacity(running.len());
    let mut latencies_us = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (index, ended) = ended.context("a lane panicked")?;
        let (lane, lane_latencies_us) = ended?;
        latencies_us.extend(lane_latencies_us);
        back.push((index, lane));
    }
    // The order of lanes is part of the next round's work: which request goes over which connection.
    back.sort_by_key(|(index, _lane)| *index);
    lanes.extend(back.into_iter().map(|(_index, lane)| lane));
    latencies_us.sort_unstable();
    Ok(Round { answers: latencies_us.len() as u64, seconds: window.counted.as_secs_f64(), latencies_us })
}

async fn run_lane<W: Work>(mut lane: Lane<W>, begins: Instant, ends: Instant) -> Result<(Lane<W>, Vec<u32>)> {
    let mut latencies_us = Vec::new();
    let mut asked = Instant::now();
    while asked < ends {
        let Some(request) = lane.work.request() else {
            bail!("nothing was left to ask before the window ended; give more --runs or fewer --seconds");
        };
        let answer = lane.connection.call(request).await?;
        lane.work.answered(answer)?;
        let now = Instant::now();
        if now >= begins && now < ends {
            latencies_us.push(u32::try_from((now - asked).as_micros()).unwrap_or(u32::MAX));
        }
        asked = now;
    }
    Ok((lane, latencies_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_answers() {
        let round = Round { answers: 100, seconds: 2.0, latencies_us: (1..=100).collect() };
        assert_eq!(round.per_second(), 50.0);
        assert_eq!(round.percentile_us(0.0), 1.0);
        assert_eq!(round.percentile_us(0.5), 51.0);
        assert_eq!(round.percentile_us(0.99), 99.0);
        assert_eq!(round.percentile_us(1.0), 100.0);
        assert!(Round::default().percentile_us(0.5).is_nan());
    }
}
