//! Eigenvalues of small symmetric matrices.

use ndarray::{Array2, ArrayView2};

/// More sweeps than any matrix needs: convergence is quadratic, ten do for thousands of rows.
const MOST_SWEEPS: usize = 64;

/// Eigenvalues of a symmetric matrix, ascending; not-a-number if an entry is not finite. Of a matrix that is not quite
/// symmetric, those of its mean with its transpose; one that is not square is cut to its smaller side.
///
/// Cyclic Jacobi rotations (Golub and Van Loan 2013, algorithm 8.5.3): every eigenvalue is right to a few roundings of
/// the *greatest* one. For a batch's kernel of 32 to 256 rows that is fast enough, and needs no linear algebra library.
pub fn symmetric_eigenvalues(matrix: ArrayView2<'_, f64>) -> Vec<f64> {
    let n = matrix.nrows().min(matrix.ncols());
    let mut a = Array2::from_shape_fn([n, n], |(i, j)| 0.5 * matrix[[i, j]] + 0.5 * matrix[[j, i]]);
    if a.iter().any(|v| !v.is_finite()) {
        return vec![f64::NAN; n];
    }
    // Squares must neither overflow nor vanish.
    let largest = a.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    if largest == 0.0 {
        return vec![0.0; n];
    }
    a.mapv_inplace(|v| v / largest);
    for _ in 0..MOST_SWEEPS {
        let total: f64 = a.iter().map(|v| v * v).sum();
        let beside: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, v)| v * v).sum();
        if beside <= f64::EPSILON * f64::EPSILON * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, p, q);
            }
        }
    }
    let mut values: Vec<f64> = a.diag().iter().map(|v| v * largest).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The rotation in the plane of `p` and `q` that makes their common entry zero.
fn rotate(a: &mut Array2<f64>, p: usize, q: usize) {
    let common = a[[p, q]];
    if common == 0.0 {
        return;
    }
    let tau = (a[[q, q]] - a[[p, p]]) / (2.0 * common);
    let t = tau.signum() / (tau.abs() + tau.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..a.nrows() {
        let (x, y) = (a[[k, p]], a[[k, q]]);
        (a[[k, p]], a[[k, q]]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..a.nrows() {
        let (x, y) = (a[[p, k]], a[[q, k]]);
        (a[[p, k]], a[[q, k]]) = (c * x - s * y, s * x + c * y);
    }
    (a[[p, q]], a[[q, p]]) = (0.0, 0.0);
}

#[cfg(test)]
mod tests;
