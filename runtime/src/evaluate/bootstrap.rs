//! Bootstrap: how far a statistic would vary with other networks of the same kind.

use nasbn_models::sample;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Share of the replicates within an interval.
pub const CONFIDENCE: f64 = 0.95;

/// Fewest resamples that give an interval: one of them is in either tail.
pub const FEWEST: u32 = 40;

/// `n` indices below `n`, drawn with replacement: replicate number `replicate` of `seed`.
///
/// Every replicate has a stream of its own, so all columns see the same resamples.
pub fn resample(seed: u64, replicate: u64, n: usize, into: &mut Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(replicate);
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    into.clear();
    into.extend((0..n).map(|_| sample::below(&mut rng, n)));
}

/// The percentile interval of replicates of a statistic (Efron 1979): their (1 -/+ 0.95) / 2 quantiles,
/// interpolated between neighbours. None if the statistic is undefined in half of them or more.
pub fn percentile_interval(replicates: &[Option<f64>]) -> Option<(f64, f64)> {
    let mut defined: Vec<f64> = replicates.iter().copied().flatten().collect();
    if 2 * defined.len() <= replicates.len() {
        return None;
    }
    defined.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some((quantile(&defined, tail)?, quantile(&defined, 1.0 - tail)?))
}

/// The `q` quantile of sorted values, linear between neighbours (type 7 of Hyndman and Fan 1996).
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_interval_holds_the_middle_of_the_replicates() {
        let replicates: Vec<_> = (0..=1000).rev().map(|i| Some(f64::from(i))).collect();
        let (low, high) = percentile_interval(&replicates).unwrap();
        assert!((low - 25.0).abs() < 1e-9 && (high - 975.0).abs() < 1e-9, "{low} {high}");
        assert_eq!(percentile_interval(&[Some(2.0), None, Some(2.0)]), Some((2.0, 2.0)));
        assert_eq!(percentile_interval(&[Some(2.0), None]), None);
        assert_eq!(percentile_interval(&[]), None);
    }

    #[test]
    fn resamples_are_a_function_of_seed_and_number() {
        let draw = |seed, replicate| {
            let mut drawn = Vec::new();
            resample(seed, replicate, 50, &mut drawn);
            drawn
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert!(draw(1, 2) != draw(1, 3) && draw(1, 2) != draw(2, 2));
        assert!(draw(1, 2).iter().all(|&i| i < 50));
        // About 1 / e of the networks are left out of a resample.
        let left_out: usize = (0..200).map(|b| (0..50).filter(|i| !draw(0, b).contains(i)).count()).sum();
        assert!((3450..3850).contains(&left_out), "{left_out}");
    }

    /// The interval of a mean is about 1.96 standard errors either way.
    #[test]
    fn an_interval_is_as_wide_as_theory_says() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 100)).collect();
        let mut drawn = Vec::new();
        let mean = |replicate| {
            resample(5, replicate, values.len(), &mut drawn);
            Some(drawn.iter().map(|&i| values[i as usize]).sum::<f64>() / values.len() as f64)
        };
        let means: Vec<Option<f64>> = (0..2000).map(mean).collect();
        let (low, high) = percentile_interval(&means).unwrap();
        // Standard deviation of 0..99 is 28.87, so the half-width is 1.96 * 28.87 / 20.
        let half_width = 2.83;
        assert!(((high - low) / 2.0 - half_width).abs() < 0.2 && (low + half_width - 49.5).abs() < 0.2, "{low} {high}");
    }
}
