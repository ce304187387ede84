//! One path as a network of its own: ONNX with BatchNorm folded, its unfolded parameters, and the
//! definition with which it is trained elsewhere.

mod definition;
mod network;
mod parameters;

pub use definition::{definition, timm_arch_def};
pub use network::subnet;
pub use parameters::parameters;

use nasbn_models::{Path, Supernet};

use crate::{bundle::BundleError, ir::GraphError, tensors::TensorError};

/// Parameters and running statistics of one BatchNorm, one value a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnValues<'a> {
    /// Scales.
    pub gamma: &'a [f32],
    /// Shifts.
    pub beta: &'a [f32],
    /// Means of the input over batch and pixels.
    pub mean: &'a [f32],
    /// Biased variances of the input over batch and pixels.
    pub var: &'a [f32],
}

impl<'a> BnValues<'a> {
    /// The four vectors with the last part of their names.
    pub fn parts(&self) -> [(&'static str, &'a [f32]); 4] {
        [("gamma", self.gamma), ("beta", self.beta), ("running_mean", self.mean), ("running_var", self.var)]
    }
}

/// Where the values of BatchNorms come from.
pub trait BnSource {
    /// Values of BatchNorm number `bn` (in program order) of `operator` on `edge`.
    fn bn(&self, edge: usize, operator: u8, bn: u16) -> Option<BnValues<'_>>;
}

/// Why a path is not written.
#[derive(Debug, thiserror::Error)]
pub enum SubnetError {
    /// The path is none of the space.
    #[error("the path does not belong to the space `{0}`")]
    Path(String),
    /// A BatchNorm without values, with too few, or with ones that are not finite.
    #[error("BatchNorm {name}: {problem}")]
    BatchNorm {
        /// Its key.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A weight is missing.
    #[error(transparent)]
    Weights(#[from] TensorError),
    /// An operator has no inference graph.
    #[error("operator {key}: {source}")]
    Graph {
        /// Its key.
        key: String,
        /// Why.
        source: GraphError,
    },
    /// No edge of the path leads to the logits.
    #[error("no edge of the path leads to the logits")]
    Disconnected,
}

impl SubnetError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Path(_) => "`nasbn-export inspect DIR` shows how paths of the bundle's space are written",
            Self::BatchNorm { .. } => {
                "the statistics do not fit: adapt again with a lower --rate, and check the images"
            }
            Self::Bundle(error) => error.hint(),
            Self::Weights(_) | Self::Graph { .. } => {
                "the bundle is incomplete or was changed: copy it again, or build it again"
            }
            Self::Disconnected => "choose a path whose layers are not all absent between image and logits",
        }
    }
}

/// Checks that `path` is one of `supernet`'s.
fn check(supernet: &Supernet, path: &Path) -> Result<(), SubnetError> {
    if supernet.contains(path) { Ok(()) } else { Err(SubnetError::Path(supernet.name.clone())) }
}

/// The values of a BatchNorm of `channels` channels, checked.
fn bn_values<'a>(
    source: &'a dyn BnSource,
    supernet: &Supernet,
    (edge, operator, bn): (usize, u8, u16),
    channels: u32,
) -> Result<BnValues<'a>, SubnetError> {
    let wrong = |problem| SubnetError::BatchNorm { name: format!("{}.bn{bn}", supernet.key(edge, operator)), problem };
    let values = source.bn(edge, operator, bn).ok_or_else(|| wrong("has no values"))?;
    let all = [values.gamma, values.beta, values.mean, values.var];
    if all.iter().any(|v| v.len() != channels as usize) {
        return Err(wrong("has another number of channels"));
    }
    if all.iter().any(|v| v.iter().any(|x| !x.is_finite())) || values.var.iter().any(|&v| v < 0.0) {
        return Err(wrong("holds values that are not finite, or a negative variance"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
