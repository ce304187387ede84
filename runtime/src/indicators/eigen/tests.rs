//! Matrices that were made from their eigenvalues.

use ndarray::{Array1, Array2, array};

use super::symmetric_eigenvalues;

/// Error of an eigenvalue, as a share of the greatest; making the matrix rounds too.
const CLOSE: f64 = 1e-13;

/// Numbers in -1..1 (a linear congruential generator will do).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// `Q diag(values) Q^T`, Q a product of as many random reflections `1 - 2 v v^T / v^T v` as there are values.
fn with_eigenvalues(values: &[f64], numbers: &mut Numbers) -> Array2<f64> {
    let n = values.len();
    let mut matrix = Array2::from_diag(&Array1::from(values.to_vec()));
    for _ in 0..n {
        let v: Vec<f64> = (0..n).map(|_| numbers.next()).collect();
        let square: f64 = v.iter().map(|v| v * v).sum();
        let unit = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
        let reflection = Array2::from_shape_fn([n, n], |(i, j)| unit(i, j) - 2.0 * v[i] * v[j] / square);
        matrix = reflection.dot(&matrix).dot(&reflection);
    }
    matrix
}

fn check(values: &mut [f64], numbers: &mut Numbers) {
    let matrix = with_eigenvalues(values, numbers);
    values.sort_unstable_by(f64::total_cmp);
    let greatest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    // The squares of the second and third would vanish, or overflow.
    for scale in [1.0, 1e-200, 1e200] {
        let found = symmetric_eigenvalues((&matrix * scale).view());
        assert_eq!(found.len(), values.len());
        for (found, expected) in found.iter().map(|v| v / scale).zip(&*values) {
            assert!((found - expected).abs() <= CLOSE * greatest, "{found} instead of {expected}, greatest {greatest}");
        }
    }
}

#[test]
fn eigenvalues_are_those_that_the_matrix_was_made_of() {
    let mut numbers = Numbers(1);
    for n in [1, 2, 3, 8, 32, 65] {
        check(&mut (0..n).map(|_| numbers.next()).collect::<Vec<f64>>(), &mut Numbers(2));
        // Many magnitudes; low rank; all but one equal.
        check(&mut (0..n).map(|i| 10.0_f64.powf(-12.0 * i as f64 / n as f64)).collect::<Vec<f64>>(), &mut Numbers(3));
        check(
            &mut (0..n).map(|i| if i % 3 == 0 { 1.0 + i as f64 } else { 0.0 }).collect::<Vec<f64>>(),
            &mut Numbers(4),
        );
        check(&mut (0..n).map(|i| if i == 0 { 7.0 } else { 2.0 }).collect::<Vec<f64>>(), &mut Numbers(5));
    }
}

#[test]
fn known_matrices() {
    assert_eq!(symmetric_eigenvalues(array![[3.0, 0.0], [0.0, -1.0]].view()), [-1.0, 3.0]);
    assert_eq!(symmetric_eigenvalues(Array2::<f64>::zeros([3, 3]).view()), [0.0; 3]);
    assert_eq!(symmetric_eigenvalues(array![[-5.0]].view()), [-5.0]);
    assert!(symmetric_eigenvalues(Array2::<f64>::zeros([0, 0]).view()).is_empty());
    let constant = symmetric_eigenvalues(Array2::from_elem([4, 4], 0.25).view());
    assert!((constant[3] - 1.0).abs() < CLOSE && constant[..3].iter().all(|v| v.abs() < CLOSE), "{constant:?}");
    assert!(symmetric_eigenvalues(array![[1.0, f64::NAN], [0.0, 1.0]].view()).iter().all(|v| v.is_nan()));
}
