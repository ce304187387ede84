//! What many runs of one thing took.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Coefficient of variation above which times count as noisy.
pub const NOISY: f64 = 0.025;

/// Which of a thing's run times stands for it in predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The median: what one run usually takes
    #[default]
    Median,
    /// The 10th percentile: what one run takes when nothing else wants the processor
    P10,
    /// The least
    Min,
}

impl std::fmt::Display for Statistic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Median => "median",
            Self::P10 => "10th percentile",
            Self::Min => "minimum",
        })
    }
}

/// Times of one thing that was run many times, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Runs.
    pub runs: u32,
    /// Least.
    pub min_ms: f64,
    /// Arithmetic mean.
    pub mean_ms: f64,
    /// 10th percentile.
    pub p10_ms: f64,
    /// Median.
    pub median_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub max_ms: f64,
    /// Standard deviation (of the sample, n - 1) over mean; 0 for one run.
    pub variation: f64,
    /// Change of the median from the first half of the runs to the second, as a share of the first: a drift, where
    /// it stands out from [`Timing::variation`].
    pub drift: f64,
}

impl Timing {
    /// Statistics of run times in nanoseconds, in the order of the runs; none if there are none. Percentiles are those of the
    /// nearest rank: the least time that at least that share of the runs did not exceed.
    pub fn of(nanoseconds: &[u64]) -> Option<Self> {
        let ms = |ns: f64| ns / 1e6;
        let sorted = sorted(nanoseconds);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let n = sorted.len() as f64;
        let mean = sorted.iter().map(|&ns| ns as f64).sum::<f64>() / n;
        let squares: f64 = sorted.iter().map(|&ns| (ns as f64 - mean).powi(2)).sum();
        let deviation = if sorted.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let rank = |share: f64| sorted[((share * n).ceil() as usize).clamp(1, sorted.len()) - 1] as f64;
        let (early, late) = nanoseconds.split_at(nanoseconds.len() / 2);
        let drift = match (middle(&self::sorted(early)), middle(&self::sorted(late))) {
            (Some(early), Some(late)) if early > 0.0 => late / early - 1.0,
            _ => 0.0,
        };
        Some(Self {
            runs: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
            min_ms: ms(min as f64),
            mean_ms: ms(mean),
            p10_ms: ms(rank(0.10)),
            median_ms: ms(middle(&sorted)?),
            p90_ms: ms(rank(0.90)),
            p95_ms: ms(rank(0.95)),
            p99_ms: ms(rank(0.99)),
            max_ms: ms(max as f64),
            variation: if mean > 0.0 { deviation / mean } else { 0.0 },
            drift,
        })
    }

    /// One of them, milliseconds.
    pub fn statistic(&self, which: Statistic) -> f64 {
        match which {
            Statistic::Median => self.median_ms,
            Statistic::P10 => self.p10_ms,
            Statistic::Min => self.min_ms,
        }
    }

    /// Of a time that was measured elsewhere, milliseconds: as one run.
    pub fn of_one(ms: f64) -> Self {
        let [min_ms, mean_ms, p10_ms, median_ms, p90_ms, p95_ms, p99_ms, max_ms] = [ms; 8];
        Self { runs: 1, min_ms, mean_ms, p10_ms, median_ms, p90_ms, p95_ms, p99_ms, max_ms, variation: 0.0, drift: 0.0 }
    }

    /// Whether runs differed by more than [`NOISY`].
    pub fn is_noisy(&self) -> bool {
        self.variation > NOISY
    }

    /// Runs of `batch` images a second, one after another.
    pub fn throughput(&self, batch: u32) -> f64 {
        if self.mean_ms > 0.0 { f64::from(batch) * 1e3 / self.mean_ms } else { 0.0 }
    }
}

/// A time in whole nanoseconds.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn sorted(values: &[u64]) -> Vec<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Median of sorted values.
fn middle(sorted: &[u64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)? as f64;
    let lower = sorted[(sorted.len() - 1) / 2] as f64;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Differences that rounding explains.
    const EXACT: f64 = 1e-12;

    #[test]
    fn statistics_follow_their_definitions() {
        // 1 to 100 ms, in no order.
        let times: Vec<u64> = (0..100u64).map(|i| (i * 37 % 100 + 1) * 1_000_000).collect();
        let timing = Timing::of(&times).unwrap();
        assert_eq!((timing.runs, timing.min_ms, timing.max_ms), (100, 1.0, 100.0));
        assert_eq!((timing.mean_ms, timing.median_ms), (50.5, 50.5));
        assert_eq!((timing.p10_ms, timing.p90_ms, timing.p95_ms, timing.p99_ms), (10.0, 90.0, 95.0, 99.0));
        let statistics = [Statistic::Min, Statistic::P10, Statistic::Median].map(|which| timing.statistic(which));
        assert_eq!(statistics, [1.0, 10.0, 50.5]);
        // The variance of 1..=n is n (n + 1) / 12.
        assert!((timing.variation - (100.0 * 101.0 / 12.0f64).sqrt() / 50.5).abs() < EXACT);
        assert!((timing.throughput(2) - 2e3 / 50.5).abs() < EXACT && timing.is_noisy());
    }

    #[test]
    fn one_run_and_none() {
        assert_eq!(Timing::of(&[]), None);
        let timing = Timing::of(&[2_500_000]).unwrap();
        assert_eq!((timing.median_ms, timing.p99_ms, timing.variation, timing.drift), (2.5, 2.5, 0.0, 0.0));
        assert!(!timing.is_noisy());
        assert_eq!(Timing::of(&[0, 0]).unwrap().throughput(1), 0.0);
        assert_eq!(Timing::of_one(2.5), timing);
    }

    #[test]
    fn a_drift_is_the_second_half_against_the_first() {
        let timing = Timing::of(&[100, 100, 100, 110, 110, 110]).unwrap();
        assert!((timing.drift - 0.1).abs() < EXACT);
        assert_eq!(Timing::of(&[100, 110, 100, 110]).unwrap().drift, 0.0);
    }
}
