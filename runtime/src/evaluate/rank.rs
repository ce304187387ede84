//! Rank correlations.

/// Ranks from 0 where equal values share one and no rank is left out. Values are finite; a NaN would
/// have a rank of its own.
pub fn dense_ranks(values: &[f64]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    let mut rank = 0;
    for pair in order.windows(2) {
        rank += u32::from(values[pair[0]] != values[pair[1]]);
        ranks[pair[1]] = rank;
    }
    ranks
}

/// Kendall's tau-b of paired values, -1 to 1: (concordant - discordant) / sqrt((n0 - n1) (n0 - n2)), with n0 the
/// number of pairs and n1, n2 the pairs tied in `x` and in `y` (Kendall 1945). O(n log n).
///
/// None if either is constant or there are fewer than two; where one is longer, its end does not count.
pub fn kendall_tau_b(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len().min(y.len());
    let (x, y) = (dense_ranks(&x[..n]), dense_ranks(&y[..n]));
    Ranker::default().kendall(x.into_iter().zip(y))
}

/// Spearman's rho of paired values, -1 to 1: the product-moment correlation of mid-ranks. O(n log n).
///
/// None if either is constant or there are fewer than two; where one is longer, its end does not count.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len().min(y.len());
    let (x, y) = (dense_ranks(&x[..n]), dense_ranks(&y[..n]));
    Ranker::default().spearman(x.into_iter().zip(y))
}

/// Correlations of ranks, with memory that is kept from one call to the next.
#[derive(Default)]
pub struct Ranker {
    /// Both ranks in one number, `x` in the upper half.
    pairs: Vec<u64>,
    y: Vec<u32>,
    merged: Vec<u32>,
}

impl Ranker {
    /// [`kendall_tau_b`] of ranks, by Knight's algorithm (1966): sort by `x`, then count the exchanges that
    /// sorting by `y` takes.
    pub fn kendall(&mut self, ranks: impl IntoIterator<Item = (u32, u32)>) -> Option<f64> {
        self.pairs.clear();
        self.pairs.extend(ranks.into_iter().map(|(x, y)| u64::from(x) << 32 | u64::from(y)));
        self.pairs.sort_unstable();
        self.y.clear();
        self.y.extend(self.pairs.iter().map(|&pair| pair as u32));
        let all = pairs_of(self.pairs.len() as u64);
        let tied_x = tied(&self.pairs, |pair| pair >> 32);
        let tied_both = tied(&self.pairs, |pair| pair);
        let exchanges = self.sort_y();
        let tied_y = tied(&self.y, |y| y);
        if all == tied_x || all == tied_y {
            return None;
        }
        let difference = (all + tied_both - tied_x - tied_y) as f64 - 2.0 * exchanges as f64;
        Some(difference / ((all - tied_x) as f64 * (all - tied_y) as f64).sqrt())
    }

    /// Sorts `y` by merging and gives the number of pairs that stood the wrong way round.
    fn sort_y(&mut self) -> u64 {
        let n = self.y.len();
        let mut exchanges = 0;
        let mut run = 1;
        while run < n {
            self.merged.clear();
            for start in (0..n).step_by(2 * run) {
                let (middle, end) = ((start + run).min(n), (start + 2 * run).min(n));
                let (mut left, mut right) = (start, middle);
                while left < middle && right < end {
                    if self.y[left] <= self.y[right] {
                        self.merged.push(self.y[left]);
                        left += 1;
                    } else {
                        self.merged.push(self.y[right]);
                        right += 1;
                        exchanges += (middle - left) as u64;
                    }
                }
                self.merged.extend_from_slice(&self.y[left..middle]);
                self.merged.extend_from_slice(&self.y[right..end]);
            }
            std::mem::swap(&mut self.y, &mut self.merged);
            run *= 2;
        }
        exchanges
    }

    /// [`spearman`] of ranks.
    pub fn spearman(&mut self, ranks: impl IntoIterator<Item = (u32, u32)>) -> Option<f64> {
        self.pairs.clear();
        self.pairs.extend(ranks.into_iter().map(|(x, y)| u64::from(x) << 32 | u64::from(y)));
        let x = centred(self.pairs.iter().map(|pair| (pair >> 32) as usize));
        let y = centred(self.pairs.iter().map(|&pair| pair as u32 as usize));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for &pair in &self.pairs {
            let (x, y) = (x[(pair >> 32) as usize], y[pair as u32 as usize]);
            xx += x * x;
            yy += y * y;
            xy += x * y;
        }
        (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
    }
}

/// Twice the distance of every rank's mid-rank from the mean of mid-ranks: a whole number.
fn centred(ranks: impl Iterator<Item = usize> + Clone) -> Vec<f64> {
    let mut counts = vec![0_u32; ranks.clone().max().map_or(0, |most| most + 1)];
    let mut n = 0_i64;
    for rank in ranks {
        counts[rank] += 1;
        n += 1;
    }
    let mut before = 0_i64;
    let middle = counts.into_iter().map(|count| {
        let twice = 2 * before + i64::from(count) - n;
        before += i64::from(count);
        twice as f64
    });
    middle.collect()
}

/// Pairs among `n`.
fn pairs_of(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

/// Pairs of sorted values whose keys are equal.
fn tied<T: Copy, K: PartialEq>(sorted: &[T], key: impl Fn(T) -> K) -> u64 {
    sorted.chunk_by(|&a, &b| key(a) == key(b)).map(|run| pairs_of(run.len() as u64)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::sample;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// Rounding of a few sums in f64.
    const ROUNDING: f64 = 1e-12;

    /// Every pair looked at.
    fn slow_kendall(x: &[f64], y: &[f64]) -> Option<f64> {
        let (mut difference, mut untied_x, mut untied_y) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |a: f64, b: f64| f64::from(i8::from(a > b) - i8::from(a < b));
                let (dx, dy) = (sign(x[i], x[j]), sign(y[i], y[j]));
                difference += dx * dy;
                untied_x += dx * dx;
                untied_y += dy * dy;
            }
        }
        (untied_x > 0.0 && untied_y > 0.0).then(|| difference / (untied_x * untied_y).sqrt())
    }

    /// A mid-rank is the number of smaller values, and half of the equal ones.
    fn slow_spearman(x: &[f64], y: &[f64]) -> Option<f64> {
        let mid = |v: &[f64]| -> Vec<f64> {
            let rank = |a: &f64| v.iter().map(|b| if b < a { 1.0 } else { f64::from(b == a) / 2.0 }).sum::<f64>();
            let ranks: Vec<f64> = v.iter().map(rank).collect();
            let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
            ranks.iter().map(|r| r - mean).collect()
        };
        let (x, y) = (mid(x), mid(y));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let scale = dot(&x, &x) * dot(&y, &y);
        (scale > 0.0).then(|| dot(&x, &y) / scale.sqrt())
    }

    /// `from scipy.stats import kendalltau, spearmanr; kendalltau(x, y).statistic, spearmanr(x, y).statistic`
    /// with SciPy 1.17.1.
    #[test]
    fn correlations_are_those_of_scipy() {
        let cases: [(&[f64], &[f64], f64, f64); 4] = [
            (
                &[1., 2., 3., 4., 5., 6., 7., 8.],
                &[2., 1., 4., 3., 6., 5., 8., 7.],
                0.7142857142857142,
                0.9047619047619048,
            ),
            (
                &[3., 3., 1., 4., 4., 4., 0., 2., 5., 5.],
                &[0.5, 0.5, 0.25, 0.75, 0.5, 1.0, 0.0, 0.25, 1.0, 0.75],
                0.8355099778440249,
                0.9022126910156117,
            ),
            (&[1., 1., 1., 2.], &[4., 3., 2., 1.], -0.7071067811865477, -0.7745966692414834),
            (
                &[12.5, -3., 0., 7., 7., -3., 1e6, 2.],
                &[93.1, 45.4, 90.2, 91.0, 90.2, 88.8, 92.2, 89.9],
                0.792593923901217,
                0.9151683228048982,
            ),
        ];
        for (x, y, tau, rho) in cases {
            assert!((kendall_tau_b(x, y).unwrap() - tau).abs() < ROUNDING, "{:?}", kendall_tau_b(x, y));
            assert!((spearman(x, y).unwrap() - rho).abs() < ROUNDING, "{:?}", spearman(x, y));
        }
    }

    #[test]
    fn the_fast_way_equals_the_slow_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for case in 0..400_u32 {
            let n = sample::below(&mut rng, 60) as usize;
            let values = 1 + case % 40;
            let mut draw = || (0..n).map(|_| f64::from(sample::below(&mut rng, values)) - 9.5).collect::<Vec<_>>();
            let (x, y) = (draw(), draw());
            for (fast, slow) in
                [(kendall_tau_b(&x, &y), slow_kendall(&x, &y)), (spearman(&x, &y), slow_spearman(&x, &y))]
            {
                assert_eq!(fast.is_some(), slow.is_some(), "{x:?} {y:?}");
                assert!((fast.unwrap_or(0.0) - slow.unwrap_or(0.0)).abs() < ROUNDING, "{fast:?} {slow:?}");
            }
        }
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        for (x, y) in [(vec![], vec![]), (vec![1.0], vec![2.0]), (vec![3.0; 5], vec![1.0, 2.0, 3.0, 4.0, 5.0])] {
            assert_eq!((kendall_tau_b(&x, &y), spearman(&x, &y)), (None, None));
            assert_eq!((kendall_tau_b(&y, &x), spearman(&y, &x)), (None, None));
        }
        // Zero has one value, whatever its sign.
        assert_eq!(kendall_tau_b(&[0.0, -0.0, 0.0], &[1.0, 2.0, 3.0]), None);
    }
}
