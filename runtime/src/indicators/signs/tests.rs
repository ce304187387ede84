//! Kernels whose determinant is known.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, array};

use super::{SignsError, log_determinant, unscaled, unscaled_log_determinant};
use crate::network::SignAgreement;

/// Two orders of the same float64 arithmetic.
const EXACT: f64 = 1e-12;

fn agreement(kernel: Array2<f64>, activations: u64) -> SignAgreement {
    SignAgreement { kernel, activations }
}

#[test]
fn determinants_are_those_of_the_formula() {
    let found = log_determinant(&agreement(array![[10.0, 4.0], [4.0, 10.0]], 10)).unwrap().unwrap();
    assert!((found - (1.0_f64 - 0.16).ln()).abs() < EXACT, "{found}");
    assert_eq!(log_determinant(&agreement(array![[8.0, 0.0], [0.0, 8.0]], 8)), Ok(Some(0.0)));
    assert_eq!(log_determinant(&agreement(array![[8.0]], 8)), Ok(Some(0.0)), "one sample");
    let three = array![[5.0, 3.0, 2.0], [3.0, 5.0, 1.0], [2.0, 1.0, 5.0]];
    let determinant = (125.0 + 2.0 * 3.0 * 2.0 - 5.0 * (9.0 + 4.0 + 1.0)) / 125.0;
    let found = log_determinant(&agreement(three, 5)).unwrap().unwrap();
    assert!((found - f64::ln(determinant)).abs() < EXACT, "{found}");
}

#[test]
fn determinants_that_are_not_scaled_are_of_the_counts_themselves() {
    let three = array![[5.0, 3.0, 2.0], [3.0, 5.0, 1.0], [2.0, 1.0, 5.0]];
    let determinant = 5.0 * (25.0 - 1.0) - 3.0 * (15.0 - 2.0) + 2.0 * (3.0 - 10.0);
    for (kernel, activations, determinant) in
        [(array![[10.0, 4.0], [4.0, 10.0]], 10, 84.0), (array![[8.0]], 8, 8.0), (three, 5, determinant)]
    {
        let agreement = agreement(kernel, activations);
        let found = unscaled_log_determinant(&agreement).unwrap().unwrap();
        assert!((found - f64::ln(determinant)).abs() < EXACT, "{found}");
        assert_eq!(unscaled(&agreement, log_determinant(&agreement).unwrap().unwrap()), found);
    }
    assert_eq!(unscaled_log_determinant(&agreement(array![[3.0, 3.0], [3.0, 3.0]], 3)), Ok(None));
    assert!(unscaled_log_determinant(&agreement(Array2::zeros([2, 2]), 0)).is_err());
}

#[test]
fn a_singular_kernel_has_none_and_one_activation_makes_the_difference() {
    let (same, all) = (1_000_000.0, 1_000_000);
    assert_eq!(log_determinant(&agreement(array![[same, same], [same, same]], all)), Ok(None));
    let apart = log_determinant(&agreement(array![[same, same - 1.0], [same - 1.0, same]], all)).unwrap().unwrap();
    let expected = (1.0 - (1.0 - 1e-6_f64).powi(2)).ln();
    assert!((apart - expected).abs() < 1e-8, "{apart} instead of {expected}");
}

#[test]
fn what_is_no_agreement_is_refused() {
    let refused = |kernel, activations| log_determinant(&agreement(kernel, activations)).unwrap_err();
    assert_eq!(refused(Array2::zeros([0, 0]), 4), SignsError::Shape { rows: 0, columns: 0 });
    assert_eq!(refused(Array2::zeros([2, 3]), 4), SignsError::Shape { rows: 2, columns: 3 });
    assert_eq!(refused(Array2::zeros([2, 2]), 0), SignsError::NoActivations);
    for bad in [f64::NAN, f64::INFINITY, -1.0, 5.0] {
        let found = refused(array![[4.0, bad], [bad, 4.0]], 4);
        assert_eq!(found, SignsError::OutOfRange { row: 0, column: 1, activations: 4 });
        assert!(!found.hint().is_empty());
    }
}
