//! From the sum of a network's blocks to the latency of the whole network.
//!
//! A block that is measured by itself pays for a session of its own, and its caches are warmer than in a network. So the sum
//! is corrected by what whole networks take: first by an overhead and a slope; then, if networks that were left out of the
//! fit are predicted better for it, by a table of what remains, or by a slope for each operator. That table has a number for each
//! operator, wherever it stands, and one more for each block, with a ridge on both: few networks tell what operators add (a
//! launch, a change of layout), more of them what a block adds to that. `fit.rs` has the formulas.

use std::collections::HashMap;

use nasbn_models::{Path, Selection, Supernet};
use serde::{Deserialize, Serialize};

use super::{
    blocks::distinct,
    fit::{Fitted, Method, Sample},
};
use crate::path_table::PathTable;

/// A whole network's latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Canonical path.
    pub path: Path,
    /// Milliseconds.
    pub ms: f64,
}

/// A corrected table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    /// How.
    pub method: Method,
    /// Milliseconds that a network takes beyond its blocks; may be negative.
    pub overhead_ms: f64,
    /// Milliseconds of a network for each of its blocks'.
    pub slope: f64,
    /// The corrected prediction, milliseconds.
    pub table: PathTable,
    /// Root mean square of the relative errors of networks left out, by cross-validation over the networks of the fit; what to expect of
    /// others. Not a number where nothing was fitted.
    pub expected_error: f64,
}

impl Correction {
    /// No correction.
    pub fn none(sums: &PathTable) -> Self {
        Self { method: Method::Sum, overhead_ms: 0.0, slope: 1.0, table: sums.clone(), expected_error: f64::NAN }
    }

    /// Fits the correction of `sums`, the table of block latencies, to whole networks: see [`Fitted::new`]. With fewer than 8
    /// networks it is no more than [`Correction::none`].
    pub fn fit(supernet: &Supernet, sums: &PathTable, measured: &[Measured]) -> Self {
        let features = Features::new(supernet, sums);
        let samples: Vec<Sample> =
            measured.iter().filter(|m| supernet.contains(&m.path)).map(|m| features.of(&m.path, m.ms)).collect();
        let fitted = Fitted::new(&samples);
        Self {
            method: fitted.method,
            overhead_ms: fitted.overhead,
            slope: fitted.slope,
            table: features.table(&fitted),
            expected_error: fitted.expected_error,
        }
    }
}

/// What networks are told apart by: how often they have each operator, and each block, on their mixed edges, and how long
/// each operator takes there.
struct Features<'a> {
    supernet: &'a Supernet,
    sums: &'a PathTable,
    /// Column of the block of an operator on an edge.
    blocks: HashMap<(usize, u8), usize>,
    columns: usize,
}

impl<'a> Features<'a> {
    fn new(supernet: &'a Supernet, sums: &'a PathTable) -> Self {
        let operators = supernet.operators.len();
        let mut blocks = HashMap::new();
        let all = distinct(supernet);
        for (number, block) in all.iter().enumerate() {
            blocks.extend(block.members.iter().map(|&member| (member, operators + number)));
        }
        Self { supernet, sums, blocks, columns: operators + all.len() }
    }

    /// Features of a path of the supernet.
    fn of(&self, path: &Path, measured: f64) -> Sample {
        let mut counts = vec![0.0; self.columns];
        for (e, edge) in self.supernet.edges.iter().enumerate() {
            if matches!(edge.selection, Selection::Mixed(_)) {
                let operator = self.supernet.operator_on(edge, path);
                counts[usize::from(operator)] += 1.0;
                if let Some(&block) = self.blocks.get(&(e, operator)) {
                    counts[block] += 1.0;
                }
            }
        }
        let mut times = vec![0.0; self.supernet.operators.len()];
        for (c, (choice, &candidate)) in self.supernet.choices.iter().zip(path.choices()).enumerate() {
            if let Some(&operator) = choice.candidates.get(usize::from(candidate)) {
                times[usize::from(operator)] += self.sums.entry(c, candidate);
            }
        }
        Sample { sum: self.sums.value(path), times, counts, measured }
    }

    /// The table of a fit.
    fn table(&self, fitted: &Fitted) -> PathTable {
        let line = self.sums.affine(fitted.overhead, fitted.slope).raised(fitted.rest);
        let of = |numbers: &[f64], column: usize| numbers.get(column).copied().unwrap_or(0.0);
        let count = |e: usize, operator: u8| match self.supernet.edges[e].selection {
            Selection::Fixed(_) => 0.0,
            Selection::Mixed(_) => {
                let block = self.blocks.get(&(e, operator)).map_or(0.0, |&block| of(&fitted.table, block));
                of(&fitted.table, usize::from(operator)) + block
            }
        };
        let time = |(c, choice): (usize, &nasbn_models::Choice)| -> Vec<f64> {
            let more = |&operator: &u8| of(&fitted.more, usize::from(operator));
            choice.candidates.iter().zip(0..).map(|(operator, o)| more(operator) * self.sums.entry(c, o)).collect()
        };
        let times: Vec<Vec<f64>> = self.supernet.choices.iter().enumerate().map(time).collect();
        let parts = [Some(PathTable::of_edges(self.supernet, count)), PathTable::new(self.supernet, 0.0, &times)];
        parts.into_iter().flatten().fold(line, |sum, part| sum.plus(&part).unwrap_or(sum))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{composite::testing::random_paths, latency::PredictionError, testing::chain};

    /// Differences that rounding explains.
    const EXACT: f64 = 1e-9;

    /// Eight choices of three.
    fn space() -> Supernet {
        chain(8)
    }

    fn blocks() -> PathTable {
        // Identity, 1x1 and 3x3 convolution, in the order of each layer's candidates.
        let values: Vec<Vec<f64>> =
            (0..8).map(|c| if c % 2 == 0 { vec![0.0, 0.1, 0.3] } else { vec![0.0, 0.3, 0.1] }).collect();
        PathTable::new(&space(), 0.5, &values).unwrap()
    }

    fn measured(count: usize, seed: u64, latency: impl Fn(&Path) -> f64) -> Vec<Measured> {
        random_paths(&space(), count, seed).into_iter().map(|path| Measured { ms: latency(&path), path }).collect()
    }

    #[test]
    fn an_overhead_and_a_slope_are_found_again() {
        let sums = blocks();
        let truth = |path: &Path| 0.2 + 0.8 * sums.value(path);
        let fit = Correction::fit(&space(), &sums, &measured(40, 1, truth));
        assert_eq!(fit.method, Method::Line);
        assert!((fit.overhead_ms - 0.2).abs() < EXACT && (fit.slope - 0.8).abs() < EXACT, "{fit:?}");
        assert!(fit.expected_error < EXACT);
        let error = PredictionError::of(&fit.table, &measured(100, 2, truth)).unwrap();
        assert!(error.mape < EXACT && error.within_5 == 1.0 && error.kendall_tau > 0.95, "{error:?}");
    }

    #[test]
    fn what_blocks_do_not_tell_is_a_table_and_noise_is_not() {
        let sums = blocks();
        // On this device 3x3 convolutions are slow in a network, which their block by itself does not show.
        let slow =
            |path: &Path| path.choices().iter().zip([2, 1].iter().cycle()).filter(|(c, three)| c == three).count();
        let truth = |path: &Path| sums.value(path) + 0.1 * slow(path) as f64;
        // Two dozen networks tell what an operator adds wherever it stands.
        let fit = Correction::fit(&space(), &sums, &measured(24, 1, truth));
        assert!(matches!(fit.method, Method::LineAndTable(_)), "{fit:?}");
        let check = measured(200, 2, truth);
        let (line, table) = (sums.affine(fit.overhead_ms, fit.slope), fit.table);
        let (line, table) = (PredictionError::of(&line, &check).unwrap(), PredictionError::of(&table, &check).unwrap());
        assert!(table.mape < 0.2 * line.mape, "{table:?} {line:?}");
        // Errors that no table explains: the line stays, and its expected error is the noise's.
        let noise = |path: &Path| {
            let hash = path
                .choices()
                .iter()
                .fold(17u32, |h, &c| h.wrapping_mul(1_664_525).wrapping_add(u32::from(c) + 1_013_904_223));
            sums.value(path) * (1.0 + 0.05 * (f64::from(hash >> 16) / 32768.0 - 1.0))
        };
        let fit = Correction::fit(&space(), &sums, &measured(80, 3, noise));
        assert_eq!(fit.method, Method::Line);
        assert!((0.02..0.04).contains(&fit.expected_error), "{}", fit.expected_error);
    }

    #[test]
    fn an_operator_that_is_slower_in_networks_than_alone_has_a_slope_of_its_own() {
        // Layers whose 3x3 convolutions differ a thousandfold.
        let values: Vec<Vec<f64>> = (0..8)
            .map(|c| {
                let (one, three) = (0.01 * 2.7_f64.powi(c), 0.01 * 2.7_f64.powi(7 - c));
                if c % 2 == 0 { vec![0.0, one, three] } else { vec![0.0, three, one] }
            })
            .collect();
        let sums = PathTable::new(&space(), 0.5, &values).unwrap();
        let three = |path: &Path| -> f64 {
            let of = |(c, &choice): (usize, &u8)| {
                if usize::from(choice) == 2 - c % 2 { sums.entry(c, choice) } else { 0.0 }
            };
            path.choices().iter().enumerate().map(of).sum()
        };
        let truth = |path: &Path| 0.1 + sums.value(path) + 2.0 * three(path);
        // Too few to tell a number for each of 16 blocks.
        let fit = Correction::fit(&space(), &sums, &measured(14, 1, truth));
        assert!(matches!(fit.method, Method::Slopes(_)), "{fit:?}");
        let check = measured(200, 2, truth);
        let (line, slopes) = (sums.affine(fit.overhead_ms, fit.slope), fit.table);
        let mape = |table: &PathTable| PredictionError::of(table, &check).unwrap().mape;
        assert!(mape(&slopes) < 0.05 * mape(&line), "{} {}", mape(&slopes), mape(&line));
    }

    #[test]
    fn the_table_predicts_what_the_fit_predicts() {
        let (space, sums) = (space(), blocks());
        let features = Features::new(&space, &sums);
        let number = |i: usize| (i * 37 % 11) as f64 / 11.0 - 0.4;
        let fitted = Fitted {
            method: Method::Slopes(1.0),
            overhead: 0.3,
            slope: 0.9,
            more: (0..space.operators.len()).map(number).collect(),
            rest: 0.2,
            table: (0..features.columns).map(|i| number(i + 5)).collect(),
            expected_error: 0.0,
        };
        let table = features.table(&fitted);
        for path in random_paths(&space, 50, 9) {
            assert!((table.value(&path) - fitted.predict(&features.of(&path, 1.0))).abs() < EXACT);
        }
    }

    #[test]
    fn too_few_networks_and_senseless_ones_correct_nothing() {
        let sums = blocks();
        let mut few = measured(7, 1, |_| 1.0);
        few.extend([f64::NAN, 0.0, -1.0].map(|ms| Measured { path: few[0].path.clone(), ms }));
        let fit = Correction::fit(&space(), &sums, &few);
        assert_eq!((fit.method, &fit.table), (Method::Sum, &sums));
        assert_eq!(PredictionError::of(&fit.table, &[]), None);
        // Sums that are all equal: the overhead is what is left.
        let flat = PathTable::new(&space(), 2.0, &vec![vec![0.0; 3]; 8]).unwrap();
        let fit = Correction::fit(&space(), &flat, &measured(30, 1, |_| 5.0));
        assert!((fit.overhead_ms - 3.0).abs() < EXACT && fit.slope == 1.0, "{fit:?}");
    }
}
