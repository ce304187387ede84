//! The network made linear in its BatchNorm parameters, and trained: kernel regression.
//!
//! With `f` the logits `[N, C]` of a batch and J their Jacobian at the start, the linearised network is
//! `f + J (theta - theta_0)`, and gradient descent on its parameters moves its logits by
//! `f_{t+1} = f_t - rate Theta_0 dL/df(f_t)` with `Theta_0 = J J^T`, `[N C, N C]` (Lee et al. 2019, arXiv 1902.06720,
//! section 2.2, there for continuous time). That holds for any loss; for the squared loss it is kernel regression.
//! Everything here is float64.

use ndarray::{Array1, Array2, ArrayView2};

/// A batch's logits under gradient descent on the linearised network.
#[derive(Clone, Debug)]
pub struct Linearised {
    /// The whole kernel at the start, `[N C, N C]`; row `n C + c` is logit c of sample n.
    kernel: Array2<f64>,
    /// Logits as they stand, `[N, C]`.
    pub logits: Array2<f64>,
}

impl Linearised {
    /// From the kernel `[N C, N C]` and logits `[N, C]` at the start.
    ///
    /// None if their shapes do not fit.
    pub fn new(kernel: Array2<f64>, logits: Array2<f64>) -> Option<Self> {
        (kernel.dim() == (logits.len(), logits.len())).then_some(Self { kernel, logits })
    }

    /// One step of gradient descent on the mean cross-entropy against `labels`, `[N]`.
    pub fn step(&mut self, labels: &[i64], rate: f64) {
        let (_, gradient) = cross_entropy(self.logits.view(), labels);
        let gradient = Array1::from_iter(gradient.iter().copied());
        let moved = self.kernel.dot(&gradient);
        self.logits.iter_mut().zip(&moved).for_each(|(f, step)| *f -= rate * step);
    }
}

/// Mean softmax cross-entropy of logits `[N, C]`, nats, and its gradient `(p - y) / N`, `[N, C]`.
/// A label that is no class adds neither.
pub fn cross_entropy(logits: ArrayView2<'_, f64>, labels: &[i64]) -> (f64, Array2<f64>) {
    let count = logits.nrows().max(1) as f64;
    let mut gradient = Array2::zeros(logits.dim());
    let mut loss = 0.0;
    for ((row, mut gradient), &label) in logits.rows().into_iter().zip(gradient.rows_mut()).zip(labels) {
        let Some(label) = usize::try_from(label).ok().filter(|&label| label < row.len()) else { continue };
        let greatest = row.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
        let sum: f64 = row.iter().map(|v| (v - greatest).exp()).sum();
        loss += greatest + sum.ln() - row[label];
        for (c, (gradient, logit)) in gradient.iter_mut().zip(row).enumerate() {
            let own = if c == label { 1.0 } else { 0.0 };
            *gradient = ((logit - greatest).exp() / sum - own) / count;
        }
    }
    (loss / count, gradient)
}

/// Frobenius norm.
pub fn norm(a: ArrayView2<'_, f64>) -> f64 {
    a.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// `||a - b|| / ||b||` in the Frobenius norm; 0 where both are zero.
pub fn relative_distance(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    let distance = norm((&a - &b).view());
    if distance == 0.0 { 0.0 } else { distance / norm(b) }
}

/// `<a, b> / (||a|| ||b||)` in the Frobenius norm; not a number where either is zero.
pub fn cosine(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>() / (norm(a) * norm(b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::array;

    use super::*;

    /// Rounding of float64 over some hundred steps.
    const ROUNDING: f64 = 1e-10;
    /// Central differences of a smooth function at steps of 1e-5.
    const DIFFERENCES: f64 = 1e-8;

    fn logits() -> Array2<f64> {
        array![[0.3, -1.2, 2.0], [1.0, 1.0, -0.5]]
    }

    #[test]
    fn the_loss_is_what_its_formula_says_and_its_gradient_its_slope() {
        let labels = [2, 0];
        let f = logits();
        let by_hand = f.rows().into_iter().zip(labels).map(|(row, label)| {
            let sum: f64 = row.iter().map(|v| v.exp()).sum();
            -(row[label as usize].exp() / sum).ln()
        });
        let (loss, gradient) = cross_entropy(logits().view(), &labels);
        assert!((loss - by_hand.sum::<f64>() / 2.0).abs() < ROUNDING);
        for ((n, c), &slope) in gradient.indexed_iter() {
            let at = |step: f64| {
                let mut moved = logits();
                moved[[n, c]] += step;
                cross_entropy(moved.view(), &labels).0
            };
            assert!((slope - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < DIFFERENCES, "{n}, {c}");
        }
        let huge = array![[1e4, -1e4], [0.0, 0.0]];
        assert_eq!(cross_entropy(huge.view(), &[0, 0]).0, std::f64::consts::LN_2 / 2.0);
        assert_eq!(cross_entropy(huge.view(), &[7, -1]), (0.0, Array2::zeros([2, 2])));
    }

    /// Parameters of a linear model, descended one after another, are the slow twin.
    #[test]
    fn logits_move_as_those_of_a_linear_model_whose_parameters_descend() {
        const PARAMETERS: usize = 4;
        let (labels, rate) = ([1, 2], 0.3);
        let entry = |(i, p)| ((i * i + 3 * i * p + 5 * p * p) as f64 * 0.7).sin();
        let jacobian = Array2::from_shape_fn([6, PARAMETERS], entry);
        let mut linear = Linearised::new(jacobian.dot(&jacobian.t()), logits()).unwrap();
        let mut parameters = [0.0; PARAMETERS];
        let model = |parameters: &[f64; PARAMETERS]| {
            let moved = |i: usize| (0..PARAMETERS).map(|p| jacobian[[i, p]] * parameters[p]).sum::<f64>();
            Array2::from_shape_fn([2, 3], |(n, c)| logits()[[n, c]] + moved(3 * n + c))
        };
        for _ in 0..200 {
            let (_, gradient) = cross_entropy(model(&parameters).view(), &labels);
            let slope = |p: usize| (0..6).map(|i| jacobian[[i, p]] * gradient[[i / 3, i % 3]]).sum::<f64>();
            let step: Vec<f64> = (0..PARAMETERS).map(slope).collect();
            parameters.iter_mut().zip(step).for_each(|(p, step)| *p -= rate * step);
            linear.step(&labels, rate);
        }
        assert!(relative_distance(linear.logits.view(), model(&parameters).view()) < ROUNDING);
        assert!(cross_entropy(linear.logits.view(), &labels).0 < 0.5 * cross_entropy(logits().view(), &labels).0);
        assert!(Linearised::new(Array2::zeros([5, 5]), logits()).is_none());
    }

    #[test]
    fn a_cosine_is_of_the_angle_between_entries() {
        let (a, b) = (array![[3.0, 0.0], [0.0, 4.0]], array![[0.0, 2.0], [2.0, 0.0]]);
        assert_eq!(cosine(a.view(), b.view()), 0.0);
        assert!((cosine(a.view(), (&a * -7.0).view()) + 1.0).abs() < ROUNDING);
        assert!((cosine(a.view(), array![[1.0, 0.0], [0.0, 0.0]].view()) - 0.6).abs() < ROUNDING);
        assert!(cosine(a.view(), Array2::zeros([2, 2]).view()).is_nan());
    }

    #[test]
    fn distances_are_relative_to_the_second() {
        let (a, b) = (array![[1.0, 0.0], [0.0, 5.0]], array![[1.0, 0.0], [3.0, 1.0]]);
        assert_eq!(relative_distance(a.view(), b.view()), 5.0 / 11f64.sqrt());
        let zero = Array2::zeros([2, 2]);
        assert_eq!(relative_distance(zero.view(), zero.view()), 0.0);
        assert_eq!(relative_distance(b.view(), zero.view()), f64::INFINITY);
    }
}
