//! The composite: one number that ranks paths, from indicators of every perspective.
//!
//! Each part is an indicator, measured on a reference sample of paths ([`measure`]) and smoothed into a [`PathTable`]. A
//! path's composite is the weighted mean over the parts of its rank among a population of random paths. Ranks need no
//! units: how a part is scaled does not matter.

mod candidates;
mod measure;
mod rank;

pub use candidates::score_candidates;
pub use measure::{
    COLUMNS, CompositeError, PARTS, PartFit, ReferenceImages, ReferenceOptions, TRUSTED, measure, parts, parts_of_all,
};
pub use rank::Ranks;

use nasbn_models::Path;
use serde::{Deserialize, Serialize};

use crate::path_table::PathTable;

/// One indicator of a composite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Name of the indicator.
    pub indicator: String,
    /// Weight of its rank.
    pub weight: f64,
    /// What stands for measuring it, larger is better.
    pub table: PathTable,
    /// Its values over the population, larger is better.
    pub ranks: Ranks,
}

/// A score that is a function of paths alone: millions a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Composite {
    parts: Vec<Part>,
    scales: Vec<Vec<Scale>>,
}

/// Mean and standard deviation of a part over the paths of one draw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the population; 0 where all were equal.
    pub deviation: f64,
}

impl Scale {
    /// Of finite values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n).sqrt();
        Self { mean, deviation }
    }

    /// The value with the mean taken away, in deviations; 0 where all were equal.
    pub fn standardise(&self, value: f64) -> f64 {
        if self.deviation > 0.0 { (value - self.mean) / self.deviation } else { value * 0.0 }
    }
}

impl Composite {
    /// A composite of fitted tables with their weights (larger is better in all), with ranks among `population`.
    pub fn new(tables: Vec<(&str, f64, PathTable)>, population: &[Path]) -> Self {
        let part = |(indicator, weight, table): (&str, f64, PathTable)| {
            let ranks = Ranks::new(population.iter().map(|path| table.value(path)).collect());
            Part { indicator: indicator.to_owned(), weight, table, ranks }
        };
        Self { parts: tables.into_iter().map(part).collect(), scales: Vec::new() }
    }

    /// With the scales of its parts in every draw that it was measured in.
    pub fn with_scales(mut self, scales: Vec<Vec<Scale>>) -> Self {
        self.scales = scales;
        self
    }

    /// Scales of the parts, in order, in each draw.
    pub fn scales(&self) -> &[Vec<Scale>] {
        &self.scales
    }

    /// Its parts.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The path's rank in every part, in order.
    pub fn ranks(&self, path: &Path) -> impl Iterator<Item = f64> {
        self.parts.iter().map(|part| part.ranks.of(part.table.value(path)))
    }

    /// The weighted mean of the path's ranks: about 0 for the worst of the population, 1 for the best, beyond these for
    /// paths beyond it. The path must be canonical, as the paths of the fit. Not a number without parts, or if one is none.
    pub fn score(&self, path: &Path) -> f64 {
        self.weigh(self.ranks(path))
    }

    /// As [`Composite::score`], from values of the parts themselves, standardised as the tables are. Not a number if one
    /// of them is none.
    pub fn score_of_values(&self, values: &[f64]) -> f64 {
        let rank = |(part, &value): (&Part, &f64)| if value.is_nan() { value } else { part.ranks.of(value) };
        self.weigh(self.parts.iter().zip(values).map(rank))
    }

    fn weigh(&self, ranks: impl Iterator<Item = f64>) -> f64 {
        let sum: f64 = self.parts.iter().zip(ranks).map(|(part, rank)| part.weight * rank).sum();
        let weights: f64 = self.parts.iter().map(|part| part.weight).sum();
        if weights > 0.0 { sum / weights } else { f64::NAN }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use nasbn_models::{BnPlacement, Choice, Path, Supernet, sample, supernet::TextForm};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    /// Eight choices of three, and no more of a supernet than that.
    pub fn space() -> Supernet {
        let choice = |i| Choice { name: format!("layer {i}"), candidates: vec![0, 1, 2] };
        Supernet {
            name: "choices".into(),
            placement: BnPlacement::Convolution,
            width_permille: 1000,
            nodes: Vec::new(),
            edges: Vec::new(),
            choices: (0..8).map(choice).collect(),
            operators: Vec::new(),
            alphabet: vec![0, 1, 2],
            text_form: TextForm::Digits,
        }
    }

    pub fn random_paths(supernet: &Supernet, count: usize, seed: u64) -> Vec<Path> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| sample::uniform(supernet, &mut rng)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use testing::{random_paths, space};

    fn table(weight: impl Fn(usize, usize) -> f64) -> PathTable {
        let values: Vec<Vec<f64>> = (0..8).map(|c| (0..3).map(|o| weight(c, o)).collect()).collect();
        PathTable::new(&space(), 0.0, &values).unwrap()
    }

    #[test]
    fn scales_and_monotone_functions_of_a_part_change_nothing_but_ties() {
        let supernet = space();
        let population = random_paths(&supernet, 500, 1);
        let one = table(|c, o| (c * o) as f64);
        let other = table(|c, o| 3.0 * o as f64 - c as f64);
        // By a power of two, so that ties stay ties.
        let shrunk = table(|c, o| (c * o) as f64 / f64::from(1 << 20));
        let composite =
            |first: &PathTable| Composite::new(vec![("a", 3.0, first.clone()), ("b", 1.0, other.clone())], &population);
        let (a, b) = (composite(&one), composite(&shrunk));
        for path in random_paths(&supernet, 100, 2) {
            assert!((a.score(&path) - b.score(&path)).abs() < 1e-9);
        }
        // The slow twin: the share of the population that is worse, a tie counting half.
        let path = &population[17];
        let share = |table: &PathTable| {
            let value = table.value(path);
            let worse = population.iter().filter(|p| table.value(p) < value).count() as f64;
            let equal = population.iter().filter(|p| table.value(p) == value).count() as f64;
            (worse + 0.5 * equal) / 500.0
        };
        assert!((a.score(path) - 0.75 * share(&one) - 0.25 * share(&other)).abs() < 1e-12);
    }

    #[test]
    fn values_of_a_path_are_scored_as_its_tables_are() {
        let population = random_paths(&space(), 300, 3);
        let (one, other) = (table(|c, o| (c * o) as f64), table(|_, o| o as f64));
        let composite = Composite::new(vec![("a", 2.0, one.clone()), ("b", 1.0, other.clone())], &population);
        for path in &population {
            let values = [one.value(path), other.value(path)];
            assert_eq!(composite.score_of_values(&values), composite.score(path));
        }
        assert!(composite.score_of_values(&[1.0, f64::NAN]).is_nan());
        let scale = Scale::of(&[1.0, 3.0]);
        assert_eq!((scale.mean, scale.deviation, scale.standardise(4.0)), (2.0, 1.0, 2.0));
        assert_eq!(Scale::of(&[2.0, 2.0]).standardise(5.0), 0.0);
        assert!(scale.standardise(f64::NAN).is_nan() && Scale::of(&[2.0]).standardise(f64::NAN).is_nan());
    }

    #[test]
    fn the_best_path_of_every_part_is_the_best_path() {
        let composite = Composite::new(
            vec![("a", 1.0, table(|_, o| o as f64)), ("b", 2.0, table(|c, o| (c * o) as f64))],
            &random_paths(&space(), 300, 3),
        );
        let best = Path::new(&[2; 8]).unwrap();
        assert!(space().paths().all(|path| composite.score(&path) <= composite.score(&best)));
        assert!(Composite::default().score(&best).is_nan(), "without parts there is no score");
        let undefined = Composite::new(vec![("a", 1.0, table(|_, _| f64::NAN))], &random_paths(&space(), 30, 3));
        assert!(undefined.score(&best).is_nan());
    }
}
