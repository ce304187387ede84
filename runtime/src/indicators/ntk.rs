//! Trainability: the neural tangent kernel of the BatchNorm parameters.
//!
//! With J the Jacobian of one number per sample with respect to gamma and beta, `Theta = J J^T`, `[N, N]` (Jacot et
//! al. 2018, arXiv 1806.07572), here the sum over BatchNorms l of `Jg_l Jg_l^T + Jb_l Jb_l^T`. J comes in float32 from
//! one batched pass; everything after it is float64.

use nasbn_models::{Selection, Supernet};
use ndarray::{Array2, ArrayView2};

use super::eigen::symmetric_eigenvalues;
use crate::{
    engine::EngineError,
    network::{Jacobian, Network, Pass},
    parameters::{BnParameters, Layout, Statistics},
};

/// Which outputs of the network the kernel is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outputs {
    /// The sum of a sample's logits (as TE-NAS, Chen et al. 2021, arXiv 2102.11535; without its scale
    /// `1 / sqrt(classes)` the pseudo-NTK of Mohamadi et al. 2023, arXiv 2206.12543). One Jacobian.
    #[default]
    Sum,
    /// Every logit for itself: the kernels of all classes summed, which is the trace over outputs of the whole kernel
    /// `[N, N, classes, classes]`. One Jacobian a class.
    EachClass,
}

impl Outputs {
    /// The seeds `[N, classes]` whose Jacobians' kernels are summed.
    pub fn seeds(self, samples: usize, classes: usize) -> impl Iterator<Item = Array2<f32>> {
        let seed = move |class: usize| {
            let one = move |(_, k): (usize, usize)| if self == Self::Sum || k == class { 1.0 } else { 0.0 };
            Array2::from_shape_fn([samples, classes], one)
        };
        (0..if self == Self::Sum { 1 } else { classes }).map(seed)
    }
}

/// Theta of a pass that was kept for indicators, `[N, N]`, exactly symmetric. `statistics` are those that the pass wrote.
///
/// # Errors
/// See [`Network::jacobian`].
pub fn kernel(
    network: &mut Network,
    parameters: &BnParameters,
    statistics: &Statistics,
    pass: &Pass,
    outputs: Outputs,
) -> Result<Array2<f64>, EngineError> {
    let shape = pass.logits.dims();
    let &[samples, classes] = shape else {
        return Err(EngineError::Tensor(format!("logits of shape {:?} are not [N, classes]", shape)));
    };
    let (samples, classes) = (samples as usize, classes as usize);
    let mut theta = Array2::zeros([samples, samples]);
    for seed in outputs.seeds(samples, classes) {
        add_gram(&mut theta, &network.jacobian(parameters, statistics, pass, seed.view())?, Parameters::All);
    }
    Ok(theta)
}

/// Which BatchNorms' parameters a kernel is of.
#[derive(Clone, Copy)]
pub enum Parameters<'a> {
    /// All of the path's.
    All,
    /// Those on fixed edges (stem, head) of this supernet, laid out so: the same parameters for every path, so that
    /// kernels of different paths can be compared, and do not grow with the number of their parameters.
    Shared(&'a Supernet, &'a Layout),
}

impl Parameters<'_> {
    fn hold(self, slot: usize) -> bool {
        match self {
            Self::All => true,
            Self::Shared(supernet, layout) => {
                let edge = layout.slots().get(slot).map(|slot| usize::from(slot.edge));
                let edge = edge.and_then(|edge| supernet.edges.get(edge));
                edge.is_some_and(|edge| matches!(edge.selection, Selection::Fixed(_)))
            }
        }
    }
}

/// Adds `J J^T` of one Jacobian with respect to these parameters to `theta`, `[N, N]`.
pub fn add_gram(theta: &mut Array2<f64>, jacobian: &Jacobian, of: Parameters<'_>) {
    let slots = jacobian.slots.iter().filter(|slot| of.hold(slot.slot));
    for part in slots.flat_map(|slot| [&slot.gamma, &slot.beta]) {
        let part = part.mapv(f64::from);
        for n in 0..part.nrows() {
            for m in 0..=n {
                let product = part.row(n).dot(&part.row(m));
                theta[[n, m]] += product;
                if n != m {
                    theta[[m, n]] += product;
                }
            }
        }
    }
}

/// What a kernel says of how well a network trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtkSummary {
    /// Greatest eigenvalue over least; infinite if the least one is not above zero. Believe it only where
    /// `ill_conditioned` is false.
    pub condition_number: f64,
    /// Least eigenvalue; rounding may leave it a little below zero.
    pub least_eigenvalue: f64,
    /// Greatest eigenvalue.
    pub greatest_eigenvalue: f64,
    /// Sum of the eigenvalues.
    pub trace: f64,
    /// Effective rank, 1 to N: `exp(-sum p ln p)` with p the eigenvalues divided by their sum (Roy and Vetterli 2007,
    /// definition 1). None for a kernel of zeroes.
    pub effective_rank: Option<f64>,
    /// Centred kernel-target alignment, -1 to 1: `<K, L>_F / (|K|_F |L|_F)` with K the centred kernel, L the centred
    /// `Y Y^T` and Y the labels one-hot (Cortes et al. 2012, definition 4). None where either is zero: one class only,
    /// one sample, or a constant kernel.
    pub label_alignment: Option<f64>,
    /// Whether the least eigenvalue is not above `N eps greatest`, eps being float32's: so far the rounding of J alone can
    /// move it (Weyl's inequality). The condition number then exceeds `1 / (N eps)` and is noise.
    pub ill_conditioned: bool,
}

/// Why a kernel has no summary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NtkError {
    /// Not a square matrix of at least one row.
    #[error("a kernel has as many rows as columns and at least one, not {rows} x {columns}")]
    Shape {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// An entry is NaN or infinite.
    #[error("the kernel of samples {row} and {column} is not finite")]
    NotFinite {
        /// One sample.
        row: usize,
        /// The other.
        column: usize,
    },
    /// Not one label a sample.
    #[error("{found} labels do not fit {samples} samples")]
    Labels {
        /// Samples of the kernel.
        samples: usize,
        /// Labels given.
        found: usize,
    },
}

impl NtkError {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Shape { .. } | Self::Labels { .. } => "give the kernel of one batch and that batch's labels",
            Self::NotFinite { .. } => "check the checkpoint and the images for NaN and for very large values",
        }
    }
}

/// The summary of a kernel `[N, N]` and the labels `[N]` of its samples.
///
/// # Errors
/// See [`NtkError`]. A singular kernel is no error but [`NtkSummary::ill_conditioned`].
pub fn summary(theta: ArrayView2<'_, f64>, labels: &[i64]) -> Result<NtkSummary, NtkError> {
    let (rows, columns) = theta.dim();
    if rows != columns || rows == 0 {
        return Err(NtkError::Shape { rows, columns });
    }
    if labels.len() != rows {
        return Err(NtkError::Labels { samples: rows, found: labels.len() });
    }
    if let Some(((row, column), _)) = theta.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(NtkError::NotFinite { row, column });
    }
    let eigenvalues = symmetric_eigenvalues(theta);
    let (least, greatest) = (eigenvalues[0], eigenvalues[rows - 1]);
    let noise = rows as f64 * f64::from(f32::EPSILON) * greatest;
    Ok(NtkSummary {
        condition_number: if least > 0.0 { greatest / least } else { f64::INFINITY },
        least_eigenvalue: least,
        greatest_eigenvalue: greatest,
        trace: theta.diag().sum(),
        effective_rank: effective_rank(&eigenvalues),
        label_alignment: label_alignment(theta, labels),
        ill_conditioned: least <= noise,
    })
}

/// `ln det Theta`, nats: the sum over eigenvalues of their logarithms, for gradient flow the mean log rate at which it
/// learns the batch's modes, times N. None if the kernel is singular as far as float32 tells (see
/// [`NtkSummary::ill_conditioned`]), not finite, or empty.
pub fn log_determinant(theta: ArrayView2<'_, f64>) -> Option<f64> {
    let (rows, columns) = theta.dim();
    if rows != columns || rows == 0 || theta.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let eigenvalues = symmetric_eigenvalues(theta);
    let noise = rows as f64 * f64::from(f32::EPSILON) * eigenvalues[rows - 1];
    (eigenvalues[0] > noise).then(|| eigenvalues.iter().map(|v| v.ln()).sum())
}

/// Eigenvalues that rounding has left below zero count as zero.
fn effective_rank(eigenvalues: &[f64]) -> Option<f64> {
    let positive = || eigenvalues.iter().copied().filter(|&v| v > 0.0);
    let sum: f64 = positive().sum();
    let entropy: f64 = positive().map(|v| v / sum).map(|p| if p > 0.0 { -p * p.ln() } else { 0.0 }).sum();
    (sum > 0.0).then(|| entropy.exp())
}

fn label_alignment(theta: ArrayView2<'_, f64>, labels: &[i64]) -> Option<f64> {
    let n = labels.len();
    // Alignment does not depend on scale; at this one, squares neither overflow nor vanish.
    let largest = theta.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    if largest == 0.0 {
        return None;
    }
    let kernel = centred(&theta.mapv(|v| v / largest));
    let same = |(i, j): (usize, usize)| if labels[i] == labels[j] { 1.0 } else { 0.0 };
    let target = centred(&Array2::from_shape_fn([n, n], same));
    let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
    // What centring leaves of a constant by rounding alone.
    let nothing = n as f64 * n as f64 * f64::EPSILON;
    let (of_kernel, of_target) = (norm(&kernel), norm(&target));
    let product: f64 = kernel.iter().zip(&target).map(|(a, b)| a * b).sum();
    (of_kernel > nothing && of_target > nothing).then(|| product / (of_kernel * of_target))
}

/// `H A H` with `H = 1 - 1 1^T / N`.
fn centred(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows() as f64;
    let rows: Vec<f64> = a.rows().into_iter().map(|row| row.sum() / n).collect();
    let columns: Vec<f64> = a.columns().into_iter().map(|column| column.sum() / n).collect();
    let mean = rows.iter().sum::<f64>() / n;
    Array2::from_shape_fn(a.dim(), |(i, j)| a[[i, j]] - rows[i] - columns[j] + mean)
}

#[cfg(test)]
mod tests;
