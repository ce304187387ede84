//! From the sum of a network's blocks to the latency of the whole network.
//!
//! A block that is measured by itself pays for a session of its own, and its caches are warmer than in a network. So the sum
//! is corrected by what whole networks take: first by an overhead and a slope; then, if networks that were left out of the
//! fit are predicted better for it, by a table of what remains. That table has a number for each operator, wherever it
//! stands, and one more for each block, with a ridge on both: few networks tell what operators add (a launch, a change of layout),
//! more of them what a block adds to that.

use std::collections::HashMap;

use nasbn_models::{Path, Selection, Supernet};
use serde::{Deserialize, Serialize};

use super::blocks::distinct;
use crate::{
    evaluate::rank::kendall_tau_b,
    path_table::{MIN_PATHS, PathTable, Ridge},
};

/// A whole network's latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Canonical path.
    pub path: Path,
    /// Milliseconds.
    pub ms: f64,
}

/// How the sum of blocks is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Not at all: no whole network was measured.
    Sum,
    /// By an overhead and a slope.
    Line,
    /// By an overhead, a slope and a table of what remains, with this ridge.
    LineAndTable(f64),
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

/// Parts of the cross-validation.
const FOLDS: usize = 8;
/// Ridges that are tried, in runs of a network: larger means less of a table.
const RIDGES: [f64; 8] = [64.0, 16.0, 4.0, 1.0, 0.25, 0.0625, 0.0156, 0.0039];
/// Share by which a table must lower the error of networks left out to be preferred to a line alone: less may be chance.
const WORTH: f64 = 0.1;
/// Relative error that nobody would lower.
const NOTHING: f64 = 1e-4;

impl Correction {
    /// No correction.
    pub fn none(sums: &PathTable) -> Self {
        Self { method: Method::Sum, overhead_ms: 0.0, slope: 1.0, table: sums.clone(), expected_error: f64::NAN }
    }

    /// Fits the correction of `sums`, the table of block latencies, to whole networks. With fewer than 8 networks it is no
    /// more than [`Correction::none`].
    ///
    /// Lines are least squares of relative errors (weights `1 / ms^2`), since relative errors are what a prediction is judged
    /// by. The table is one of what remains in milliseconds, all networks weighing alike: with the line's weights, errors on
    /// networks of HW-NAS-Bench left out were the same (by less than 0.03 points of MAPE better or worse, 60 fits of 32 and 100 networks).
    pub fn fit(supernet: &Supernet, sums: &PathTable, measured: &[Measured]) -> Self {
        let usable = |m: &&Measured| m.ms.is_finite() && m.ms > 0.0 && supernet.contains(&m.path);
        let measured: Vec<&Measured> = measured.iter().filter(usable).collect();
        if measured.len() < MIN_PATHS {
            return Self::none(sums);
        }
        let features = Features::new(supernet);
        let methods = std::iter::once(Method::Line).chain(RIDGES.map(Method::LineAndTable));
        let errors: Vec<(Method, f64)> =
            methods.map(|method| (method, left_out(&features, sums, &measured, method))).collect();
        let line = errors[0];
        let least = errors.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(line);
        let (method, expected_error) = if line.1 > NOTHING && least.1 < (1.0 - WORTH) * line.1 { least } else { line };
        let (overhead_ms, slope) = line_of(sums, &measured);
        let table = corrected(&features, sums, &measured, method);
        Self { method, overhead_ms, slope, table, expected_error }
    }
}

/// Overhead and slope.
fn line_of(sums: &PathTable, measured: &[&Measured]) -> (f64, f64) {
    // Minimises sum ((a + b s - y) / y)^2.
    let (mut w, mut ws, mut wss, mut wy, mut wsy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for m in measured {
        let (s, y) = (sums.value(&m.path), m.ms);
        let weight = 1.0 / (y * y);
        w += weight;
        ws += weight * s;
        wss += weight * s * s;
        wy += weight * y;
        wsy += weight * s * y;
    }
    let determinant = w * wss - ws * ws;
    // Sums that are all equal tell nothing of a slope.
    if determinant <= 1e-12 * w * wss {
        let slope = 1.0;
        return (if w > 0.0 { (wy - slope * ws) / w } else { 0.0 }, slope);
    }
    let slope = (w * wsy - ws * wy) / determinant;
    ((wy - slope * ws) / w, slope)
}

/// The prediction of a method fitted to networks.
fn corrected(features: &Features<'_>, sums: &PathTable, measured: &[&Measured], method: Method) -> PathTable {
    let (overhead, slope) = match method {
        Method::Sum => (0.0, 1.0),
        _ => line_of(sums, measured),
    };
    let line = sums.affine(overhead, slope);
    let Method::LineAndTable(ridge) = method else { return line };
    let rest: Vec<f64> = measured.iter().map(|m| m.ms - line.value(&m.path)).collect();
    let x: Vec<f64> = measured.iter().flat_map(|m| features.of(&m.path)).collect();
    let fit = Ridge::fit(x, features.columns, &rest, ridge);
    line.plus(&features.table(&fit)).unwrap_or(line)
}

/// What networks are told apart by: how often they have each operator, and each block, on their mixed edges.
struct Features<'a> {
    supernet: &'a Supernet,
    /// Column of the block of an operator on an edge.
    blocks: HashMap<(usize, u8), usize>,
    columns: usize,
}

impl<'a> Features<'a> {
    fn new(supernet: &'a Supernet) -> Self {
        let operators = supernet.operators.len();
        let mut blocks = HashMap::new();
        let all = distinct(supernet);
        for (number, block) in all.iter().enumerate() {
            blocks.extend(block.members.iter().map(|&member| (member, operators + number)));
        }
        Self { supernet, blocks, columns: operators + all.len() }
    }

    /// Counts of a path.
    fn of(&self, path: &Path) -> Vec<f64> {
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
        counts
    }

    /// The table of a fit.
    fn table(&self, fit: &Ridge) -> PathTable {
        let of = |column: usize| fit.coefficients.get(column).copied().unwrap_or(0.0);
        let entry = |e: usize, operator: u8| match self.supernet.edges[e].selection {
            Selection::Fixed(_) => 0.0,
            Selection::Mixed(_) => of(usize::from(operator)) + self.blocks.get(&(e, operator)).map_or(0.0, |&b| of(b)),
        };
        PathTable::of_edges(self.supernet, entry).raised(fit.intercept)
    }
}

/// Root mean square of the relative errors on networks left out of the fit, a part at a time.
fn left_out(features: &Features<'_>, sums: &PathTable, measured: &[&Measured], method: Method) -> f64 {
    let folds = FOLDS.min(measured.len());
    let mut squares = 0.0;
    for fold in 0..folds {
        let (out, within): (Vec<_>, Vec<_>) = measured.iter().enumerate().partition(|(i, _)| i % folds == fold);
        let within: Vec<&Measured> = within.into_iter().map(|(_, m)| *m).collect();
        let table = corrected(features, sums, &within, method);
        squares += out.into_iter().map(|(_, m)| (table.value(&m.path) / m.ms - 1.0).powi(2)).sum::<f64>();
    }
    (squares / measured.len() as f64).sqrt()
}

/// How well predictions hold on networks that were not in the fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionError {
    /// Networks.
    pub networks: u32,
    /// Mean absolute percentage error, as a share.
    pub mape: f64,
    /// Mean of the relative errors with their signs: above 0 if predictions are too high.
    pub bias: f64,
    /// Share of the networks whose prediction is within 5 %.
    pub within_5: f64,
    /// Share of the networks whose prediction is within 10 %.
    pub within_10: f64,
    /// Kendall's tau-b between prediction and measurement; not a number where one of them is constant.
    pub kendall_tau: f64,
}

impl PredictionError {
    /// Of a table's predictions on measured networks; none if there are none.
    pub fn of(table: &PathTable, measured: &[Measured]) -> Option<Self> {
        if measured.is_empty() {
            return None;
        }
        let n = measured.len() as f64;
        let predicted: Vec<f64> = measured.iter().map(|m| table.value(&m.path)).collect();
        let errors: Vec<f64> = predicted.iter().zip(measured).map(|(p, m)| p / m.ms - 1.0).collect();
        let share = |limit: f64| errors.iter().filter(|e| e.abs() <= limit).count() as f64 / n;
        let ms: Vec<f64> = measured.iter().map(|m| m.ms).collect();
        Some(Self {
            networks: u32::try_from(measured.len()).unwrap_or(u32::MAX),
            mape: errors.iter().map(|e| e.abs()).sum::<f64>() / n,
            bias: errors.iter().sum::<f64>() / n,
            within_5: share(0.05),
            within_10: share(0.10),
            kendall_tau: kendall_tau_b(&predicted, &ms).unwrap_or(f64::NAN),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{composite::testing::random_paths, testing::chain};

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

    #[test]
    fn errors_follow_their_definitions() {
        let flat = PathTable::new(&space(), 1.0, &vec![vec![0.0; 3]; 8]).unwrap();
        let path = random_paths(&space(), 1, 0).remove(0);
        let of = |ms: f64| Measured { path: path.clone(), ms };
        let error = PredictionError::of(&flat, &[of(1.0 / 1.04), of(1.0 / 0.92), of(0.5)]).unwrap();
        assert!((error.mape - (0.04 + 0.08 + 1.0) / 3.0).abs() < EXACT);
        assert!((error.bias - (0.04 - 0.08 + 1.0) / 3.0).abs() < EXACT);
        assert!((error.within_5 - 1.0 / 3.0).abs() < EXACT && (error.within_10 - 2.0 / 3.0).abs() < EXACT);
        assert!(error.kendall_tau.is_nan() && error.networks == 3);
    }
}
