//! How far the tangent kernel of a path's BatchNorm parameters moves while they are trained.

use nasbn_models::Path;
use ndarray::{Array2, ArrayView2, ArrayView4};
use serde::Serialize;

use super::linear::{Linearised, cosine, cross_entropy, norm, relative_distance};
use crate::{
    adapt::LARGEST_PARAMETER,
    data::Batch,
    engine::EngineError,
    network::{Network, Pass},
    parameters::{BnParameters, Layout, Statistics},
};

/// Most logits of a batch: the whole kernel has that many rows and columns.
pub const MOST_LOGITS: usize = 4096;

/// Why there is no drift.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    /// A graph failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A number became infinite or none, or a parameter larger than [`LARGEST_PARAMETER`], from where no training comes
    /// back.
    #[error("{what} became {value:e} at step {step} (learning rate {rate:.3e})")]
    NonFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Steps taken.
        step: u64,
        /// Rate in use.
        rate: f64,
    },
    /// The logits depend on no BatchNorm.
    #[error("the kernel of the path is zero: no BatchNorm parameter moves its logits")]
    NoKernel,
    /// The caller wants no more.
    #[error("stopped")]
    Stopped,
}

/// A moment of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Steps taken.
    pub step: u64,
    /// Mean cross-entropy of the path on the fixed batch, nats.
    pub loss: f64,
    /// The same of the linearised network; none where its training is not followed.
    pub linearised_loss: Option<f64>,
    /// `||Theta_t - Theta_0|| / ||Theta_0||` in the Frobenius norm.
    pub kernel_distance: f64,
    /// `||Theta_t|| / ||Theta_0||`.
    pub kernel_norm: f64,
    /// `<Theta_t, Theta_0> / (||Theta_t|| ||Theta_0||)`, the cosine between them as vectors of entries. With the two
    /// others: `distance^2 = norm^2 + 1 - 2 norm cosine`.
    pub kernel_cosine: f64,
    /// `||f_lin - f|| / ||f - f_0||`: how far the linearised logits are from the true ones, of the way that these
    /// have gone; none at the start and where the linearised training is not followed.
    pub logit_distance: Option<f64>,
}

/// The drift of a path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Learning rate.
    pub rate: f64,
    /// Moments in order, the first before any step.
    pub moments: Vec<Moment>,
}

/// Options of [`of_path`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftOptions {
    /// Steps of gradient descent.
    pub steps: u64,
    /// Moments besides the first, evenly apart; no more than steps.
    pub points: u64,
    /// Learning rate; none for [`usual_rate`].
    pub rate: Option<f64>,
    /// Which statistics BatchNorms use.
    pub statistics: StatisticsUse,
}

/// The steps, of `total`, after which one of `points` moments is: evenly apart, the last at the end. The first, 0, is
/// not among them.
pub fn moments(total: u64, points: u64) -> Vec<u64> {
    let points = points.min(total);
    (1..=points).map(|point| (u128::from(point) * u128::from(total) / u128::from(points)) as u64).collect()
}

/// The rate `N / ||Theta_0||`, with the Frobenius norm of the whole kernel of N samples.
///
/// The curvature of the mean cross-entropy is at most `1 / (2 N)` along any logits (of softmax, Böhning 1992), so that
/// descent of the linearised network is stable below `4 N / greatest eigenvalue`; the norm is no less than that
/// eigenvalue, so this rate is a quarter of the bound or less.
pub fn usual_rate(kernel: &Array2<f64>, samples: usize) -> f64 {
    samples as f64 / norm(kernel.view())
}

/// Which statistics BatchNorms use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatisticsUse {
    /// Those of the batch, whatever parameters are: what BatchNorm does in training. Derivatives go through them, so
    /// that every logit depends on every image.
    Batch,
    /// Those that the batch has at the start, held constant, as the tangent kernels of `nasbn score` take them.
    Held,
}

impl StatisticsUse {
    /// A kept pass. `statistics` are those that it used: written by it, or given.
    fn forward(
        self,
        network: &mut Network,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
    ) -> Result<Pass, EngineError> {
        match self {
            Self::Batch => network.forward_for_indicators(path, parameters, images, statistics),
            Self::Held => network.forward_held(path, parameters, images, statistics),
        }
    }

    /// The gradient of `sum seed logits` of a pass, written to `gradient`.
    fn gradient(
        self,
        network: &mut Network,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: &Pass,
        seed: ArrayView2<'_, f32>,
        gradient: &mut BnParameters,
    ) -> Result<(), EngineError> {
        if self == Self::Batch {
            return network.gradient(parameters, statistics, pass, seed, gradient);
        }
        let jacobian = network.jacobian(parameters, statistics, pass, seed)?;
        for slot in &jacobian.slots {
            let range = network.layout().slots()[slot.slot].range.clone();
            for (to, rows) in [(&mut gradient.gamma, &slot.gamma), (&mut gradient.beta, &slot.beta)] {
                let sums = rows.columns().into_iter().map(|column| column.iter().map(|&v| f64::from(v)).sum::<f64>());
                to[range.clone()].iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as f32);
            }
        }
        Ok(())
    }
}

/// The whole kernel `J J^T` of a pass that was kept for indicators, `[N C, N C]`: row `n C + c` is logit c of sample n.
/// `statistics` are those of the pass.
///
/// Held, it takes a Jacobian pass a class, and its trace over logits is [`crate::indicators::ntk::kernel`] of each class.
/// Of the batch, samples depend on each other, and it takes a backward pass a logit.
///
/// # Errors
/// If a graph fails.
pub fn whole_kernel(
    network: &mut Network,
    parameters: &BnParameters,
    statistics: &Statistics,
    pass: &Pass,
    using: StatisticsUse,
) -> Result<Array2<f64>, EngineError> {
    let [samples, classes] = extents(pass.logits.dims())?;
    let slots: Vec<usize> = network.layout().path(network.supernet(), pass.path()).collect();
    let mut parts: Vec<Array2<f64>> = slots
        .iter()
        .map(|&slot| Array2::zeros([samples * classes, 2 * network.layout().slots()[slot].range.len()]))
        .collect();
    match using {
        StatisticsUse::Batch => {
            let mut gradient = BnParameters::zeros(network.layout());
            for row in 0..samples * classes {
                let mut seed = Array2::zeros([samples, classes]);
                seed[[row / classes, row % classes]] = 1.0;
                network.gradient(parameters, statistics, pass, seed.view(), &mut gradient)?;
                for (&slot, part) in slots.iter().zip(&mut parts) {
                    let range = network.layout().slots()[slot].range.clone();
                    let values = gradient.gamma[range.clone()].iter().chain(&gradient.beta[range]);
                    part.row_mut(row).iter_mut().zip(values).for_each(|(to, &v)| *to = f64::from(v));
                }
            }
        }
        StatisticsUse::Held => {
            for class in 0..classes {
                let one = |(_, c): (usize, usize)| if c == class { 1.0 } else { 0.0 };
                let seed = Array2::from_shape_fn([samples, classes], one);
                let jacobian = network.jacobian(parameters, statistics, pass, seed.view())?;
                for (slot, part) in jacobian.slots.iter().zip(&mut parts) {
                    for n in 0..samples {
                        let values = slot.gamma.row(n).into_iter().chain(slot.beta.row(n));
                        let mut row = part.row_mut(n * classes + class);
                        row.iter_mut().zip(values).for_each(|(to, &v)| *to = f64::from(v));
                    }
                }
            }
        }
    }
    let mut theta = Array2::zeros([samples * classes, samples * classes]);
    parts.iter().for_each(|part| theta += &part.dot(&part.t()));
    Ok(theta)
}

/// Logits of a pass, `[N, C]`.
fn logits(network: &mut Network, pass: &Pass) -> Result<Array2<f64>, EngineError> {
    let logits = network.logits(pass)?;
    let (dims, values) = logits.read()?;
    let values = values.iter().map(|&v| f64::from(v)).collect();
    Array2::from_shape_vec(extents(dims)?, values).map_err(|error| EngineError::Tensor(error.to_string()))
}

/// Samples and classes of logits with these dimensions.
fn extents(dims: &[i64]) -> Result<[usize; 2], EngineError> {
    let wrong = || EngineError::Tensor(format!("logits of shape {dims:?} are not [N, classes]"));
    let &[samples, classes] = dims else { return Err(wrong()) };
    Ok([usize::try_from(samples).map_err(|_| wrong())?, usize::try_from(classes).map_err(|_| wrong())?])
}

/// Gamma and beta in float64, so that steps far smaller than they are not lost.
struct Parameters {
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

impl Parameters {
    fn new(start: &BnParameters) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        Self { gamma: wide(&start.gamma), beta: wide(&start.beta) }
    }

    fn narrow(&self) -> BnParameters {
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        BnParameters { gamma: narrow(&self.gamma), beta: narrow(&self.beta) }
    }

    /// Takes a step of `rate` against the gradient of the given slots; gives the parameter of greatest size.
    fn descend(&mut self, layout: &Layout, slots: &[usize], gradient: &BnParameters, rate: f64) -> f64 {
        let mut greatest: f64 = 0.0;
        for &slot in slots {
            let range = layout.slots()[slot].range.clone();
            for (to, by) in [(&mut self.gamma, &gradient.gamma), (&mut self.beta, &gradient.beta)] {
                for (to, &by) in to[range.clone()].iter_mut().zip(&by[range.clone()]) {
                    *to -= rate * f64::from(by);
                    greatest = if to.is_nan() { f64::NAN } else { greatest.max(to.abs()) };
                }
            }
        }
        greatest
    }
}

/// Trains gamma and beta of `path` alone by plain gradient descent on the mean cross-entropy of one batch, and compares
/// its kernel and loss with those of the linearised network ([`super::linear`]) on the way.
///
/// The whole kernel is the exact one of what is trained, whichever statistics are used: as the rate goes to 0, the first
/// steps of both agree.
/// `after` is called after every step; the run stops where it gives false.
///
/// # Errors
/// See [`DriftError`].
pub fn of_path(
    network: &mut Network,
    path: &Path,
    start: &BnParameters,
    batch: &Batch,
    options: DriftOptions,
    mut after: impl FnMut(u64) -> bool,
) -> Result<Drift, DriftError> {
    let layout = network.layout().clone();
    let images = batch.images.view();
    let slots: Vec<usize> = layout.path(network.supernet(), path).collect();
    let using = options.statistics;
    let mut statistics = Statistics::standard(&layout);
    let pass = network.forward_for_indicators(path, start, images, &mut statistics)?;
    let (theta, first) = (whole_kernel(network, start, &statistics, &pass, using)?, logits(network, &pass)?);
    drop(pass);
    let rate = options.rate.unwrap_or_else(|| usual_rate(&theta, batch.len()));
    let size = norm(theta.view());
    let check = |what, value: f64, most: f64, step| match value.is_finite() && value <= most {
        true => Ok(value),
        false => Err(DriftError::NonFinite { what, value, step, rate }),
    };
    if size == 0.0 {
        return Err(DriftError::NoKernel);
    }
    if !size.is_finite() {
        return Err(DriftError::NonFinite { what: "the kernel", value: size, step: 0, rate });
    }
    let mut linear = Linearised::new(theta.clone(), first.clone()).ok_or(DriftError::NoKernel)?;
    let mut parameters = Parameters::new(start);
    let mut drift = Drift { rate, moments: Vec::new() };
    let loss = cross_entropy(first.view(), &batch.labels).0;
    drift.moments.push(Moment {
        step: 0,
        loss,
        linearised_loss: Some(loss),
        kernel_distance: 0.0,
        kernel_norm: 1.0,
        kernel_cosine: 1.0,
        logit_distance: None,
    });
    let due = moments(options.steps, options.points);
    let (mut current, mut descent) = (start.clone(), BnParameters::zeros(&layout));
    for step in 0..=options.steps {
        let pass = using.forward(network, path, &current, images, &mut statistics)?;
        let f = logits(network, &pass)?;
        let (loss, gradient) = cross_entropy(f.view(), &batch.labels);
        check("the loss", loss, f64::MAX, step)?;
        if due.contains(&step) {
            let now = whole_kernel(network, &current, &statistics, &pass, using)?;
            let way = norm((&f - &first).view());
            let apart = norm((&linear.logits - &f).view());
            drift.moments.push(Moment {
                step,
                loss,
                linearised_loss: Some(cross_entropy(linear.logits.view(), &batch.labels).0),
                kernel_distance: relative_distance(now.view(), theta.view()),
                kernel_norm: norm(now.view()) / size,
                kernel_cosine: cosine(now.view(), theta.view()),
                logit_distance: (way > 0.0).then(|| apart / way),
            });
        }
        if step == options.steps {
            break;
        }
        let seed = gradient.mapv(|v| v as f32);
        using.gradient(network, &current, &statistics, &pass, seed.view(), &mut descent)?;
        let greatest = parameters.descend(&layout, &slots, &descent, rate);
        check("a BatchNorm parameter", greatest, f64::from(LARGEST_PARAMETER), step + 1)?;
        current = parameters.narrow();
        linear.step(&batch.labels, rate);
        if !after(step + 1) {
            return Err(DriftError::Stopped);
        }
    }
    Ok(drift)
}

/// The whole kernel of a path with the statistics that the batch has under `parameters` (held, or gone through), and its
/// mean cross-entropy there.
///
/// # Errors
/// If a graph fails.
pub fn as_it_stands(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    images: ArrayView4<'_, f32>,
    labels: &[i64],
    using: StatisticsUse,
) -> Result<(Array2<f64>, f64), EngineError> {
    let mut statistics = Statistics::standard(network.layout());
    let pass = network.forward_for_indicators(path, parameters, images, &mut statistics)?;
    let theta = whole_kernel(network, parameters, &statistics, &pass, using)?;
    Ok((theta, cross_entropy(logits(network, &pass)?.view(), labels).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_apart_and_end_at_the_end() {
        assert_eq!(moments(10, 5), [2, 4, 6, 8, 10]);
        assert_eq!(moments(10, 3), [3, 6, 10]);
        assert_eq!(moments(3, 9), [1, 2, 3]);
        assert_eq!(moments(7, 1), [7]);
        assert_eq!(moments(0, 3), [0; 0]);
        assert_eq!(moments(u64::MAX, 2)[1], u64::MAX);
    }
}
