//! Ranks against a fixed population.

use serde::{Deserialize, Serialize};

/// The values of a population, for the ranks of others among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// Distinct values, ascending.
    values: Vec<f64>,
    /// Share of the population below each, a tie counting half.
    shares: Vec<f64>,
}

impl Ranks {
    /// The ranks of a population. Values that are not numbers are left out.
    pub fn new(mut population: Vec<f64>) -> Self {
        population.retain(|value| !value.is_nan());
        population.sort_by(f64::total_cmp);
        let n = population.len().max(1) as f64;
        let (mut values, mut shares) = (Vec::new(), Vec::new());
        let mut below = 0;
        for equal in population.chunk_by(|a, b| a == b) {
            values.push(equal[0]);
            shares.push((below as f64 + 0.5 * equal.len() as f64) / n);
            below += equal.len();
        }
        Self { values, shares }
    }

    /// Share of the population below `value`, a tie counting half; between two values of the population, on the
    /// line between their ranks; beyond its ends, on by as much of the population's range. So a larger
    /// value never has a lower rank, and never an equal one unless the whole population is equal.
    /// 1/2 for an empty population; not a number for what is none.
    pub fn of(&self, value: f64) -> f64 {
        if value.is_nan() {
            return value;
        }
        let (Some(&least), Some(&most)) = (self.values.first(), self.values.last()) else { return 0.5 };
        let (lowest, highest) = (self.shares[0], self.shares[self.shares.len() - 1]);
        let range = if most > least { most - least } else { f64::INFINITY };
        if value < least {
            return lowest - (least - value) / range;
        }
        if value > most {
            return highest + (value - most) / range;
        }
        let above = self.values.partition_point(|&v| v < value).min(self.values.len() - 1);
        let (right, to) = (self.values[above], self.shares[above]);
        if above == 0 || value == right {
            return to;
        }
        let (left, from) = (self.values[above - 1], self.shares[above - 1]);
        from + (to - from) * (value - left) / (right - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_shares_and_grow_with_the_value() {
        let ranks = Ranks::new(vec![3.0, 1.0, 2.0, 2.0, f64::NAN]);
        assert_eq!([1.0, 2.0, 3.0].map(|v| ranks.of(v)), [0.125, 0.5, 0.875]);
        assert_eq!(ranks.of(2.5), 0.6875);
        assert_eq!(ranks.of(5.0), 1.875);
        assert_eq!(ranks.of(0.0), 0.125 - 0.5);
        let steps: Vec<f64> = (-20..60).map(|i| ranks.of(f64::from(i) / 10.0)).collect();
        assert!(steps.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn populations_without_a_range() {
        let equal = Ranks::new(vec![4.0; 3]);
        assert_eq!([3.0, 4.0, 5.0].map(|v| equal.of(v)), [0.5; 3]);
        assert_eq!(Ranks::new(vec![f64::NAN]).of(1.0), 0.5);
    }

    #[test]
    fn what_is_no_number_has_no_rank() {
        for population in [vec![], vec![4.0; 3], vec![1.0, 2.0, 3.0]] {
            assert!(Ranks::new(population).of(f64::NAN).is_nan());
        }
    }
}
