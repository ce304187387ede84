//! What choosing by a score costs.

/// How much truth is lost by training only the `k` networks ranked highest and keeping the best: `best`, the greatest
/// truth of all networks, those without a score among them, minus the greatest among those `k`, in units of the truth,
/// at least 0.
///
/// Where networks with equal scores stand on both sides of the border, the value is the expectation over
/// all choices among them, so that it does not depend on the order of a file. Greater scores and truths
/// are better; None if `k` is 0 or not below the number of networks.
pub fn top_k_regret(score: &[f64], truth: &[f64], best: f64, k: usize) -> Option<f64> {
    let n = score.len().min(truth.len());
    if k == 0 || k >= n {
        return None;
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&a, &b| score[b].total_cmp(&score[a]));
    let border = score[order[k - 1]];
    let above = order.iter().filter(|&&i| score[i] > border);
    let surely = greatest(&above.map(|&i| truth[i]).collect::<Vec<_>>());
    let above = order.iter().filter(|&&i| score[i] > border).count();
    let mut tied: Vec<f64> = order.iter().filter(|&&i| score[i] == border).map(|&i| truth[i]).collect();
    tied.sort_unstable_by(|a, b| b.total_cmp(a));
    // The greatest of r drawn from m without replacement is the i-th greatest of all (from 0) with
    // probability r / m for i = 0, then (m - i - r + 1) / (m - i) times the one before.
    let (m, r) = (tied.len() as f64, (k - above) as f64);
    let mut probability = r / m;
    let mut expected = 0.0;
    for (i, &value) in tied.iter().enumerate() {
        expected += probability * value.max(surely);
        let i = (i + 1) as f64;
        probability *= ((m - i - r + 1.0) / (m - i)).max(0.0);
        if probability == 0.0 || i >= m {
            break;
        }
    }
    Some((best - expected).max(0.0))
}

/// The greatest of some numbers; minus infinity of none.
pub fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::sample;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// Rounding of sums in f64.
    const ROUNDING: f64 = 1e-10;

    /// Every set of `k` that could be the highest `k`, one after the other.
    fn slow(score: &[f64], truth: &[f64], k: usize) -> f64 {
        let n = score.len();
        let best = truth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut sets) = (0.0, 0.0);
        for set in 0..1_u32 << n {
            let inside = |i: usize| set >> i & 1 == 1;
            let least = (0..n).filter(|&i| inside(i)).map(|i| score[i]).fold(f64::INFINITY, f64::min);
            let outside = (0..n).filter(|&i| !inside(i)).map(|i| score[i]).fold(f64::NEG_INFINITY, f64::max);
            if set.count_ones() as usize == k && outside <= least {
                sum += (0..n).filter(|&i| inside(i)).map(|i| truth[i]).fold(f64::NEG_INFINITY, f64::max);
                sets += 1.0;
            }
        }
        best - sum / sets
    }

    #[test]
    fn ties_are_broken_in_every_way() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for case in 0..120_u32 {
            let n = 2 + sample::below(&mut rng, 9) as usize;
            let mut draw = |values| (0..n).map(|_| f64::from(sample::below(&mut rng, values))).collect::<Vec<_>>();
            let (score, truth) = (draw(1 + case % 6), draw(20));
            for k in 1..n {
                let (fast, slow) =
                    (top_k_regret(&score, &truth, greatest(&truth), k).unwrap(), slow(&score, &truth, k));
                assert!((fast - slow).abs() < ROUNDING, "{score:?} {truth:?} {k}: {fast} {slow}");
            }
        }
    }

    #[test]
    fn the_best_network_ranked_first_costs_nothing() {
        let truth = [70.0, 93.0, 91.0, 60.0];
        let regret = |score: &[f64], k| top_k_regret(score, &truth, 93.0, k);
        assert_eq!(regret(&truth, 1), Some(0.0));
        assert_eq!(regret(&[4.0, 1.0, 3.0, 2.0], 1), Some(23.0));
        assert_eq!(regret(&[4.0, 1.0, 3.0, 2.0], 2), Some(2.0));
        assert_eq!([0, 4, 9].map(|k| regret(&truth, k)), [None; 3]);
        assert_eq!(top_k_regret(&truth, &truth, 95.0, 1), Some(2.0), "the best has no score");
    }
}
