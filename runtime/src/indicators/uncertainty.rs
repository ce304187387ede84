//! Uncertainty by Monte-Carlo BatchNorm (Teye et al. 2018, "Bayesian Uncertainty Estimation for Batch
//! Normalized Deep Networks"): the same images under the statistics of several random mini-batches of
//! training images, each a sample of an approximate posterior (section 3.2, algorithm 1).

use nasbn_models::Path;
use ndarray::{Array3, ArrayView1, ArrayView3};

use crate::{
    data::Batch,
    engine::EngineError,
    network::Network,
    parameters::{BnParameters, Statistics},
};

/// What the logits `z[t, n, k]` of T samples, N images and K classes say, `p_t = softmax(z_t)`, `y` the label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uncertainty {
    /// Predictive entropy, nats: mean over n of `H(mean_t p_t)`.
    pub entropy: f64,
    /// Mutual information of label and statistics, nats: `entropy` less the mean over n and t of `H(p_t)`.
    pub mutual_information: f64,
    /// Mean over n and k of the biased variance over t of `z[t, n, k]`.
    pub logit_variance: f64,
    /// Expected log-likelihood, nats: mean over n and t of `log p_t[y]`.
    pub log_likelihood: f64,
    /// Negative log-likelihood of the mean prediction, nats: mean over n of `-log mean_t p_t[y]`.
    pub nll: f64,
}

/// Logits `[T, N, K]` of a path: `batches` with N images in all, under each of T statistics.
///
/// # Errors
/// If a graph fails.
pub fn logits(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    statistics: &[Statistics],
    batches: &[Batch],
) -> Result<Array3<f64>, EngineError> {
    let classes = network.supernet().classes() as usize;
    let images = batches.iter().map(Batch::len).sum();
    let mut all = Vec::with_capacity(statistics.len() * images * classes);
    for statistics in statistics {
        for batch in batches {
            let logits = network.evaluate(path, parameters, statistics, batch.images.view())?;
            all.extend(logits.read()?.1.iter().map(|&z| f64::from(z)));
        }
    }
    Array3::from_shape_vec((statistics.len(), images, classes), all).map_err(|e| EngineError::Tensor(e.to_string()))
}

/// The measures of logits `[T, N, K]` with labels `[N]`. A label that is no class has probability 0; not a
/// number where there is nothing to average over.
pub fn uncertainty(logits: ArrayView3<'_, f64>, labels: &[i64]) -> Uncertainty {
    let (samples, images, classes) = logits.dim();
    let mut sums = [0.0; 5];
    let mut mean_p = vec![0.0; classes];
    for (n, &label) in (0..images).zip(labels) {
        mean_p.fill(0.0);
        let label = usize::try_from(label).ok().filter(|&label| label < classes);
        let (mut entropy, mut likelihood, mut of_label) = (0.0, 0.0, Vec::with_capacity(samples));
        for t in 0..samples {
            let z = logits.slice(ndarray::s![t, n, ..]);
            let normaliser = log_sum_exp(z);
            for (mean, &z) in mean_p.iter_mut().zip(z) {
                let log_p = z - normaliser;
                let p = log_p.exp();
                *mean += p / samples as f64;
                entropy += plogp(p, log_p) / samples as f64;
            }
            let log_p = label.map_or(f64::NEG_INFINITY, |label| z[label] - normaliser);
            likelihood += log_p / samples as f64;
            of_label.push(log_p);
        }
        let predictive: f64 = mean_p.iter().map(|&p| plogp(p, p.ln())).sum();
        let variance = (0..classes).map(|k| variance(logits.slice(ndarray::s![.., n, k]))).sum::<f64>();
        let nll = (samples as f64).ln() - log_sum_exp(ArrayView1::from(&of_label));
        let terms = [predictive, entropy, variance / classes as f64, likelihood, nll];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    let [predictive, entropy, logit_variance, log_likelihood, nll] = sums.map(|sum| sum / images as f64);
    // Rounding may take a mutual information of nothing below nothing.
    let mutual_information = match predictive - entropy {
        negative if negative < 0.0 => 0.0,
        other => other,
    };
    Uncertainty { entropy: predictive, mutual_information, logit_variance, log_likelihood, nll }
}

/// `-p log p`, 0 for p of 0.
fn plogp(p: f64, log_p: f64) -> f64 {
    if p == 0.0 { 0.0 } else { -p * log_p }
}

/// `log sum exp(z)` without overflow: the largest is taken out first.
fn log_sum_exp(z: ArrayView1<'_, f64>) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return z.sum();
    }
    largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln()
}

/// Biased variance, in two passes.
fn variance(z: ArrayView1<'_, f64>) -> f64 {
    let mean = z.sum() / z.len() as f64;
    z.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / z.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f64 against f64, one order of summation against another.
    const EXACT: f64 = 1e-12;

    /// The definitions, word by word: no care for overflow, one image after another.
    fn naive(z: &Array3<f64>, labels: &[i64]) -> Uncertainty {
        let (t, n, k) = z.dim();
        let p =
            |s: usize, i: usize, c: usize| z[[s, i, c]].exp() / (0..k).map(|other| z[[s, i, other]].exp()).sum::<f64>();
        let mean = |of: &dyn Fn(usize) -> f64, count: usize| (0..count).map(of).sum::<f64>() / count as f64;
        let label = |i: usize| labels[i] as usize;
        let h = |p: f64| -p * p.ln();
        let entropy = mean(&|i| (0..k).map(|c| h(mean(&|s| p(s, i, c), t))).sum(), n);
        let expected = mean(&|i| mean(&|s| (0..k).map(|c| h(p(s, i, c))).sum(), t), n);
        let square = |i: usize, c: usize| mean(&|s| z[[s, i, c]] * z[[s, i, c]], t);
        Uncertainty {
            entropy,
            mutual_information: entropy - expected,
            logit_variance: mean(&|i| mean(&|c| square(i, c) - mean(&|s| z[[s, i, c]], t).powi(2), k), n),
            log_likelihood: mean(&|i| mean(&|s| p(s, i, label(i)).ln(), t), n),
            nll: mean(&|i| -mean(&|s| p(s, i, label(i)), t).ln(), n),
        }
    }

    fn values(u: &Uncertainty) -> [f64; 5] {
        [u.entropy, u.mutual_information, u.logit_variance, u.log_likelihood, u.nll]
    }

    fn example(shift: f64) -> (Array3<f64>, Vec<i64>) {
        let wave = |(t, n, k): (usize, usize, usize)| ((t * 7 + n * 3 + k * 5) as f64).sin() * 3.0 + shift;
        (Array3::from_shape_fn((4, 6, 5), wave), vec![0, 4, 2, 2, 1, 3])
    }

    #[test]
    fn measures_are_their_definitions() {
        let (z, labels) = example(0.0);
        let (found, expected) = (uncertainty(z.view(), &labels), naive(&z, &labels));
        for (found, expected) in values(&found).iter().zip(values(&expected)) {
            assert!((found - expected).abs() < EXACT, "{found} against {expected}");
        }
        assert!(found.mutual_information > 0.1 && found.nll <= -found.log_likelihood);
    }

    #[test]
    fn probabilities_do_not_overflow() {
        let (z, labels) = example(0.0);
        let (far, _) = example(5000.0);
        let (near, far) = (uncertainty(z.view(), &labels), uncertainty(far.view(), &labels));
        for (near, far) in values(&near).iter().zip(values(&far)) {
            // Logits of 5000 have twelve digits after the point.
            assert!((near - far).abs() < 1e-10, "{near} against {far}");
        }
    }

    #[test]
    fn sure_and_unsure_networks_are_at_the_ends() {
        let labels = [1, 1];
        let even = uncertainty(Array3::zeros((3, 2, 4)).view(), &labels);
        assert!((even.entropy - 4f64.ln()).abs() < EXACT && even.mutual_information == 0.0);
        assert!((even.nll - 4f64.ln()).abs() < EXACT && even.logit_variance == 0.0);
        // Every sample is sure of another class: all uncertainty is that of the statistics.
        let split = Array3::from_shape_fn((4, 2, 4), |(t, _, k)| if t == k { 900.0 } else { 0.0 });
        let split = uncertainty(split.view(), &labels);
        assert!((split.mutual_information - 4f64.ln()).abs() < EXACT, "{split:?}");
        assert!((split.nll - 4f64.ln()).abs() < EXACT && (split.log_likelihood + 675.0).abs() < EXACT * 900.0);
        // What is not a number stays so.
        let broken = uncertainty(Array3::from_elem((2, 2, 4), f64::NAN).view(), &labels);
        assert!(values(&broken).iter().all(|v| v.is_nan()), "{broken:?}");
    }
}
