//! Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1 and section 3).
//!
//! Per channel, with `M = N H W` and sums over batch and pixels:
//!
//! ```text
//! mean = sum x / M      var = sum (x - mean)^2 / M      r = 1 / sqrt(var + epsilon)
//! hhat = (x - mean) r   y = gamma hhat + beta
//! dbeta = sum g         dgamma = sum g hhat
//! dx = gamma r (g - mean(g) - hhat mean(g hhat))
//! ```
//!
//! The gradient goes through mean and var as well; they have none of their own, for nothing but
//! y and the bookkeeping of statistics uses them. Fused forms add a residual, or end in a ReLU:
//! `y' = max(y, 0)`, whose gradient is `g` where `y > 0`.
//!
//! With given statistics, which are then constants, samples do not meet, and every sample has a gradient of its
//! own with respect to gamma and beta, a row of the Jacobian:
//!
//! ```text
//! dbeta[n,c] = sum_hw g    dgamma[n,c] = sum_hw g hhat    dx = gamma r g
//! ```

use ndarray::{Array1, Array2, Array4, ArrayD, ArrayView1, ArrayView4};

use super::{
    super::op::{InputGradients, Op, Vjp},
    Dims, GraphError, image, shape, vector,
};

pub(crate) fn dims(op: &Op, inputs: &[&Dims]) -> Option<Vec<Dims>> {
    let vectors = |x: usize, range: std::ops::Range<usize>| {
        let channels = Dims::vector(shape(inputs.get(x)?)?.channels);
        inputs.get(range)?.iter().all(|&d| *d == channels).then_some(channels)
    };
    let residual = |at: usize| match inputs.get(at) {
        None => inputs.len() == at,
        Some(&residual) => inputs.len() == at + 1 && residual == inputs[0],
    };
    match op {
        Op::BatchNormTrain { .. } => {
            let channels = vectors(0, 1..3)?;
            residual(3).then(|| vec![inputs[0].clone(), channels.clone(), channels])
        }
        Op::BatchNormTrainGrad { relu } => {
            let count = 5 + usize::from(*relu);
            let channels = vectors(1, 2..count)?;
            let fits = inputs.len() == count && inputs[0] == inputs[1];
            fits.then(|| vec![inputs[0].clone(), channels.clone(), channels])
        }
        Op::BatchNormApply { .. } => {
            vectors(0, 1..5)?;
            residual(5).then(|| vec![inputs[0].clone()])
        }
        Op::BatchNormApplyGrad { relu } => {
            let count = 5 + usize::from(*relu);
            vectors(1, 2..count)?;
            let rows = Dims::Features(shape(inputs[1])?.channels);
            let fits = inputs.len() == count && inputs[0] == inputs[1];
            fits.then(|| vec![inputs[0].clone(), rows.clone(), rows])
        }
        _ => None,
    }
}

pub(crate) fn vjp(op: &Op, rule: &mut Vjp<'_>) -> Result<InputGradients, GraphError> {
    if rule.inputs.len() != 3 || rule.gradients.iter().skip(1).any(Option::is_some) {
        let problem = "its statistics and fused forms are not differentiated";
        return Err(GraphError::NotDifferentiable { op: op.name(), problem });
    }
    let Some(g) = rule.gradients[0] else { return Ok(vec![None; 3]) };
    let (x, gamma) = (rule.inputs[0], rule.inputs[1]);
    let (mean, var) = (rule.output.sibling(1), rule.output.sibling(2));
    let dx = rule.graph.apply(Op::BatchNormTrainGrad { relu: false }, &[g, x, gamma, mean, var])?;
    Ok((0..3).map(|i| rule.wanted[i].then(|| dx.sibling(i))).collect())
}

/// The rule of [`Op::BatchNormApply`]. Gradients of gamma and beta are `[N, C]`: those of every sample's own output,
/// whose sum over samples is the gradient proper.
pub(crate) fn vjp_of_samples(op: &Op, rule: &mut Vjp<'_>) -> Result<InputGradients, GraphError> {
    if rule.inputs.len() != 5 || rule.wanted.iter().skip(3).any(|&w| w) {
        let problem = "its statistics are constants, and its fused forms are not differentiated";
        return Err(GraphError::NotDifferentiable { op: op.name(), problem });
    }
    let Some(g) = rule.gradients[0] else { return Ok(vec![None; 5]) };
    let (x, gamma, mean, var) = (rule.inputs[0], rule.inputs[1], rule.inputs[3], rule.inputs[4]);
    let dx = rule.graph.apply(Op::BatchNormApplyGrad { relu: false }, &[g, x, gamma, mean, var])?;
    Ok((0..5).map(|i| rule.wanted[i].then(|| dx.sibling(i))).collect())
}

/// Mean and biased variance of every channel over batch and pixels.
pub fn statistics(x: ArrayView4<'_, f64>) -> (Array1<f64>, Array1<f64>) {
    let (batch, channels, height, width) = x.dim();
    let count = (batch * height * width) as f64;
    let mut mean = Array1::zeros(channels);
    for ((_, c, _, _), x) in x.indexed_iter() {
        mean[c] += x / count;
    }
    let mut var = Array1::zeros(channels);
    for ((_, c, _, _), x) in x.indexed_iter() {
        var[c] += (x - mean[c]) * (x - mean[c]) / count;
    }
    (mean, var)
}

/// The per-channel parameters of one normalisation.
struct Normalisation<'a> {
    gamma: ArrayView1<'a, f64>,
    beta: ArrayView1<'a, f64>,
    mean: ArrayView1<'a, f64>,
    var: ArrayView1<'a, f64>,
    epsilon: f64,
}

impl Normalisation<'_> {
    fn r(&self, c: usize) -> f64 {
        1.0 / (self.var[c] + self.epsilon).sqrt()
    }

    fn hhat(&self, c: usize, x: f64) -> f64 {
        (x - self.mean[c]) * self.r(c)
    }

    fn y(&self, c: usize, x: f64) -> f64 {
        self.gamma[c] * self.hhat(c, x) + self.beta[c]
    }

    fn apply(&self, x: ArrayView4<'_, f64>, residual: Option<ArrayView4<'_, f64>>, relu: bool) -> Array4<f64> {
        Array4::from_shape_fn(x.dim(), |at| {
            let y = self.y(at.1, x[at]) + residual.map_or(0.0, |r| r[at]);
            if relu { y.max(0.0) } else { y }
        })
    }

    fn gradients(&self, g: ArrayView4<'_, f64>, x: ArrayView4<'_, f64>, relu: bool) -> Vec<ArrayD<f64>> {
        let (batch, channels, height, width) = x.dim();
        let count = (batch * height * width) as f64;
        let g = Array4::from_shape_fn(g.dim(), |at| if relu && self.y(at.1, x[at]) <= 0.0 { 0.0 } else { g[at] });
        let mut dgamma = Array1::zeros(channels);
        let mut dbeta = Array1::zeros(channels);
        for (at, g) in g.indexed_iter() {
            dgamma[at.1] += g * self.hhat(at.1, x[at]);
            dbeta[at.1] += g;
        }
        let dx = Array4::from_shape_fn(x.dim(), |at| {
            let c = at.1;
            let centred = g[at] - dbeta[c] / count - self.hhat(c, x[at]) * dgamma[c] / count;
            self.gamma[c] * self.r(c) * centred
        });
        vec![dx.into_dyn(), dgamma.into_dyn(), dbeta.into_dyn()]
    }

    fn gradients_of_samples(&self, g: ArrayView4<'_, f64>, x: ArrayView4<'_, f64>, relu: bool) -> Vec<ArrayD<f64>> {
        let (batch, channels, ..) = x.dim();
        let mut dx = Array4::zeros(x.dim());
        let mut dgamma = Array2::zeros([batch, channels]);
        let mut dbeta = Array2::zeros([batch, channels]);
        for (at, &g) in g.indexed_iter() {
            let (n, c, ..) = at;
            let g = if relu && self.y(c, x[at]) <= 0.0 { 0.0 } else { g };
            dx[at] = self.gamma[c] * self.r(c) * g;
            dgamma[[n, c]] += g * self.hhat(c, x[at]);
            dbeta[[n, c]] += g;
        }
        vec![dx.into_dyn(), dgamma.into_dyn(), dbeta.into_dyn()]
    }
}

pub(crate) fn evaluate(op: &Op, inputs: &[&ArrayD<f64>], epsilon: f64) -> Option<Vec<ArrayD<f64>>> {
    let at = |i: usize| inputs.get(i).copied();
    let residual = |i: usize| match at(i) {
        None => Some(None),
        Some(array) => image(array).map(Some),
    };
    match *op {
        Op::BatchNormTrain { relu } => {
            let x = image(at(0)?)?;
            let (mean, var) = statistics(x);
            let (gamma, beta) = (vector(at(1)?)?, vector(at(2)?)?);
            let norm = Normalisation { gamma, beta, mean: mean.view(), var: var.view(), epsilon };
            let y = norm.apply(x, residual(3)?, relu);
            Some(vec![y.into_dyn(), mean.into_dyn(), var.into_dyn()])
        }
        Op::BatchNormTrainGrad { relu } | Op::BatchNormApplyGrad { relu } => {
            let (g, x) = (image(at(0)?)?, image(at(1)?)?);
            let gamma = vector(at(2)?)?;
            // Only the mask of a ReLU looks at beta; without one, any vector does.
            let beta = if relu { vector(at(5)?)? } else { gamma };
            let norm = Normalisation { gamma, beta, mean: vector(at(3)?)?, var: vector(at(4)?)?, epsilon };
            Some(match op {
                Op::BatchNormTrainGrad { .. } => norm.gradients(g, x, relu),
                _ => norm.gradients_of_samples(g, x, relu),
            })
        }
        Op::BatchNormApply { relu } => {
            let (gamma, beta) = (vector(at(1)?)?, vector(at(2)?)?);
            let norm = Normalisation { gamma, beta, mean: vector(at(3)?)?, var: vector(at(4)?)?, epsilon };
            Some(vec![norm.apply(image(at(0)?)?, residual(5)?, relu).into_dyn()])
        }
        _ => None,
    }
}
