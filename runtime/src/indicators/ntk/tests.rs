//! Kernels whose summary is known, and the formulas written out once more.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, array};

use super::{NtkError, NtkSummary, Parameters, add_gram, log_determinant, summary};
use crate::{
    network::{Jacobian, SlotJacobian},
    parameters::Layout,
    testing::chain,
};

/// Two orders of the same float64 arithmetic.
const EXACT: f64 = 1e-12;

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= EXACT * expected.abs().max(1.0), "{found} instead of {expected}");
}

#[test]
fn the_gram_matrix_is_a_sum_over_parameters() {
    let slot = |slot, gamma: Array2<f32>, beta: Array2<f32>| SlotJacobian { slot, gamma, beta };
    let first = slot(3, array![[1.0, 2.0], [3.0, -1.0]], array![[0.5, 0.0], [0.0, 4.0]]);
    let second = slot(4, array![[2.0], [1.0]], array![[-1.0], [1.0]]);
    let jacobian = Jacobian { samples: 2, slots: vec![first, second] };
    let mut theta = Array2::ones([2, 2]);
    add_gram(&mut theta, &jacobian, Parameters::All);
    // [1 2 .5 0 2 -1] and [3 -1 0 4 1 1].
    assert_eq!(theta, array![[1.0 + 10.25, 1.0 + 2.0], [1.0 + 2.0, 1.0 + 28.0]]);
}

/// Stem, two choices of three operators and a head without BatchNorm: the stem's is slot 0, the others are candidates'.
#[test]
fn shared_parameters_are_those_of_fixed_edges() {
    let supernet = chain(2);
    let layout = Layout::new(&supernet);
    assert_eq!(layout.slots().len(), 5);
    let slot = |slot: usize, gamma: Array2<f32>| SlotJacobian { slot, beta: &gamma * 2.0, gamma };
    let of = |slots: Vec<SlotJacobian>, parameters| {
        let mut theta = Array2::zeros([2, 2]);
        add_gram(&mut theta, &Jacobian { samples: 2, slots }, parameters);
        theta
    };
    let (stem, first, second) = (array![[1.0, 2.0], [3.0, -1.0]], array![[5.0], [7.0]], array![[4.0], [-4.0]]);
    let all = vec![slot(0, stem.clone()), slot(2, first), slot(3, second)];
    let shared = Parameters::Shared(&supernet, &layout);
    // Gammas and, twice as large, betas: five times [1 2] [3 -1] by itself.
    assert_eq!(of(all.clone(), shared), array![[25.0, 5.0], [5.0, 50.0]]);
    assert_eq!(of(all.clone(), shared), of(vec![slot(0, stem)], Parameters::All));
    assert_ne!(of(all.clone(), Parameters::All), of(all, shared));
    assert_eq!(of(vec![slot(1, array![[1.0], [1.0]])], shared), Array2::<f64>::zeros([2, 2]));
    // A slot that is not there is nobody's.
    assert_eq!(of(vec![slot(99, array![[1.0], [1.0]])], shared), Array2::<f64>::zeros([2, 2]));
}

#[test]
fn log_determinants_are_those_of_cofactors() {
    close(log_determinant(array![[2.0, 1.0], [1.0, 2.0]].view()).unwrap(), 3.0_f64.ln());
    close(log_determinant(array![[0.25]].view()).unwrap(), -(4.0_f64.ln()));
    let theta = array![[4.0, 1.0, 0.5], [1.0, 3.0, 2.0], [0.5, 2.0, 5.0]];
    let determinant = 4.0 * (15.0 - 4.0) - (5.0 - 1.0) + 0.5 * (2.0 - 1.5);
    close(log_determinant(theta.view()).unwrap(), f64::ln(determinant));
    for factor in [1e-180, 1e180] {
        close(log_determinant((&theta * factor).view()).unwrap(), f64::ln(determinant) + 3.0 * f64::ln(factor));
    }
}

#[test]
fn what_float32_cannot_tell_from_singular_has_no_log_determinant() {
    let limit = 1.0 / (2.0 * f64::from(f32::EPSILON));
    assert!(log_determinant(array![[0.5 * limit, 0.0], [0.0, 1.0]].view()).is_some());
    for theta in [
        array![[2.0 * limit, 0.0], [0.0, 1.0]],
        array![[1.0, 1.0], [1.0, 1.0]],
        array![[1.0, 2.0], [2.0, 1.0]],
        array![[1.0, f64::NAN], [f64::NAN, 1.0]],
        Array2::zeros([2, 2]),
        Array2::zeros([0, 0]),
        Array2::ones([1, 2]),
    ] {
        assert_eq!(log_determinant(theta.view()), None, "{theta}");
    }
}

#[test]
fn a_kernel_of_known_eigenvalues() {
    // Eigenvalues 1 and 3; two classes.
    let found = summary(array![[2.0, 1.0], [1.0, 2.0]].view(), &[0, 7]).unwrap();
    close(found.condition_number, 3.0);
    close(found.least_eigenvalue, 1.0);
    close(found.greatest_eigenvalue, 3.0);
    close(found.trace, 4.0);
    close(found.effective_rank.unwrap(), (0.25 * 4.0_f64.ln() + 0.75 * (4.0_f64 / 3.0).ln()).exp());
    close(found.label_alignment.unwrap(), 1.0);
    assert!(!found.ill_conditioned);
}

#[test]
fn a_kernel_aligned_with_the_labels_is_told_from_one_against_them() {
    let labels = [0, 0, 1, 1];
    let with = |same: f64, other: f64| {
        let entry = |(i, j): (usize, usize)| if labels[i] == labels[j] { same } else { other };
        let theta = Array2::from_shape_fn([4, 4], entry) + Array2::<f64>::eye(4);
        summary(theta.view(), &labels).unwrap().label_alignment.unwrap()
    };
    let (aligned, against) = (with(3.0, 1.0), with(1.0, 3.0));
    assert!(aligned > 0.9 && against < -0.5, "{aligned} {against}");
    // By hand: H, and traces of products.
    let theta = array![[4.0, 1.0, 0.5], [1.0, 3.0, 2.0], [0.5, 2.0, 5.0]];
    let y = array![[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]];
    let h = Array2::<f64>::eye(3) - Array2::from_elem([3, 3], 1.0 / 3.0);
    let (k, l) = (h.dot(&theta).dot(&h), h.dot(&y).dot(&y.t()).dot(&h));
    let inner = |a: &Array2<f64>, b: &Array2<f64>| a.t().dot(b).diag().sum();
    let expected = inner(&k, &l) / (inner(&k, &k) * inner(&l, &l)).sqrt();
    close(summary(theta.view(), &[5, 2, 2]).unwrap().label_alignment.unwrap(), expected);
}

#[test]
fn scale_changes_nothing_but_scale() {
    let theta = array![[4.0, 1.0, 0.5], [1.0, 3.0, 2.0], [0.5, 2.0, 5.0]];
    let one = summary(theta.view(), &[0, 1, 1]).unwrap();
    for factor in [1e-180, 1e180] {
        let scaled = summary((&theta * factor).view(), &[0, 1, 1]).unwrap();
        close(scaled.condition_number, one.condition_number);
        close(scaled.effective_rank.unwrap(), one.effective_rank.unwrap());
        close(scaled.label_alignment.unwrap(), one.label_alignment.unwrap());
        close(scaled.trace / factor, one.trace);
    }
}

#[test]
fn ill_conditioning_is_reported_and_not_replaced() {
    // The second sample is the first one again.
    let copies = summary(array![[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]].view(), &[0, 0, 1]).unwrap();
    assert!(copies.ill_conditioned && copies.least_eigenvalue.abs() < EXACT, "{copies:?}");
    let limit = 1.0 / (2.0 * f64::from(f32::EPSILON));
    for (condition, ill) in [(0.5 * limit, false), (2.0 * limit, true)] {
        let found = summary(array![[condition, 0.0], [0.0, 1.0]].view(), &[0, 1]).unwrap();
        assert_eq!((found.condition_number, found.ill_conditioned), (condition, ill));
    }
}

#[test]
fn single_constant_and_zero_kernels() {
    let one = summary(array![[2.5]].view(), &[3]).unwrap();
    let expected = NtkSummary {
        condition_number: 1.0,
        least_eigenvalue: 2.5,
        greatest_eigenvalue: 2.5,
        trace: 2.5,
        effective_rank: Some(1.0),
        label_alignment: None,
        ill_conditioned: false,
    };
    assert_eq!(one, expected);
    let constant = summary(Array2::from_elem([3, 3], 0.1).view(), &[0, 1, 2]).unwrap();
    assert!(constant.ill_conditioned && constant.label_alignment.is_none(), "{constant:?}");
    close(constant.effective_rank.unwrap(), 1.0);
    let zero = summary(Array2::zeros([3, 3]).view(), &[0, 1, 2]).unwrap();
    assert!(zero.ill_conditioned && zero.condition_number.is_infinite());
    assert_eq!((zero.effective_rank, zero.label_alignment, zero.trace), (None, None, 0.0));
    let one_class = summary(array![[2.0, 1.0], [1.0, 2.0]].view(), &[4, 4]).unwrap();
    assert_eq!(one_class.label_alignment, None);
}

#[test]
fn what_is_no_kernel_is_refused() {
    assert_eq!(summary(Array2::zeros([0, 0]).view(), &[]), Err(NtkError::Shape { rows: 0, columns: 0 }));
    assert_eq!(summary(Array2::zeros([2, 3]).view(), &[0, 1]), Err(NtkError::Shape { rows: 2, columns: 3 }));
    assert_eq!(summary(Array2::zeros([2, 2]).view(), &[0]), Err(NtkError::Labels { samples: 2, found: 1 }));
    for bad in [f64::NAN, f64::INFINITY] {
        let found = summary(array![[1.0, bad], [bad, 1.0]].view(), &[0, 1]);
        assert_eq!(found, Err(NtkError::NotFinite { row: 0, column: 1 }));
        assert!(!found.unwrap_err().hint().is_empty());
    }
}
