//! How far predictions are from what was measured.

use serde::{Deserialize, Serialize};

use super::correction::Measured;
use crate::{evaluate::rank::kendall_tau_b, path_table::PathTable};

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
        let pairs: Vec<(f64, f64)> = measured.iter().map(|m| (table.value(&m.path), m.ms)).collect();
        Self::of_pairs(&pairs)
    }

    /// Of pairs of a prediction and a measurement; none if there are none.
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let n = pairs.len() as f64;
        let errors: Vec<f64> = pairs.iter().map(|(predicted, measured)| predicted / measured - 1.0).collect();
        let share = |limit: f64| errors.iter().filter(|e| e.abs() <= limit).count() as f64 / n;
        let (predicted, measured): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        Some(Self {
            networks: u32::try_from(pairs.len()).unwrap_or(u32::MAX),
            mape: errors.iter().map(|e| e.abs()).sum::<f64>() / n,
            bias: errors.iter().sum::<f64>() / n,
            within_5: share(0.05),
            within_10: share(0.10),
            kendall_tau: kendall_tau_b(&predicted, &measured).unwrap_or(f64::NAN),
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

    #[test]
    fn errors_follow_their_definitions() {
        let flat = PathTable::new(&chain(8), 1.0, &vec![vec![0.0; 3]; 8]).unwrap();
        let path = random_paths(&chain(8), 1, 0).remove(0);
        let of = |ms: f64| Measured { path: path.clone(), ms };
        let error = PredictionError::of(&flat, &[of(1.0 / 1.04), of(1.0 / 0.92), of(0.5)]).unwrap();
        assert!((error.mape - (0.04 + 0.08 + 1.0) / 3.0).abs() < EXACT);
        assert!((error.bias - (0.04 - 0.08 + 1.0) / 3.0).abs() < EXACT);
        assert!((error.within_5 - 1.0 / 3.0).abs() < EXACT && (error.within_10 - 2.0 / 3.0).abs() < EXACT);
        assert!(error.kendall_tau.is_nan() && error.networks == 3);
    }
}
