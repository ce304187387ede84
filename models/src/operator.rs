//! Operators: candidate computations, before the shapes of an edge are known.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Output channels of a layer, relative to the edge it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Width {
    /// As many as the layer's own input has (depthwise convolutions).
    Same,
    /// As many as the edge's output has.
    Output,
    /// This many times the *edge's* input channels (expansion of an inverted residual).
    Expand(u8),
    /// This many.
    Fixed(u32),
}

/// One layer of an operator. Strided layers take the edge's stride, others stride 1.
/// Convolutions and pools of kernel `k` are padded by `(k - 1) / 2` on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// Convolution without bias.
    Conv {
        /// Side of the square kernel; odd.
        kernel: u8,
        /// Output channels.
        width: Width,
        /// One group per channel; needs [`Width::Same`].
        depthwise: bool,
        /// Whether it takes the edge's stride.
        strided: bool,
    },
    /// Batch normalisation with learned gamma and beta.
    BatchNorm,
    /// Rectified linear unit.
    Relu,
    /// Average pooling; padding is not counted.
    AvgPool {
        /// Side of the square window; odd.
        kernel: u8,
        /// Whether it takes the edge's stride.
        strided: bool,
    },
    /// Squeeze-and-excitation (Hu et al. 2018): global mean, 1x1 convolution with bias to
    /// `edge input channels / divisor` (at least 1), ReLU, 1x1 convolution with bias back, sigmoid, product.
    SqueezeExcitation {
        /// Divisor of the edge's input channels.
        divisor: u8,
    },
    /// Mean over height and width.
    GlobalAvgPool,
    /// Fully connected layer with bias, to [`Width`] features.
    Linear {
        /// Output features.
        width: Width,
    },
    /// Convolution without bias whose channels are cut, in order, into equal parts; each part of the output
    /// sees its own part of the input alone.
    GroupedConv {
        /// Side of the square kernel; odd.
        kernel: u8,
        /// Output channels.
        width: Width,
        /// Number of parts; divides input and output channels.
        groups: u32,
        /// Whether it takes the edge's stride.
        strided: bool,
    },
    /// Channel shuffle (Zhang et al. 2018, arXiv 1707.01083, section 3.1), so that the next grouped convolution sees
    /// all parts of this one: channel `j groups + i` of the output is channel `i channels / groups + j` of the input.
    ChannelShuffle {
        /// Number of parts; divides the channels.
        groups: u32,
    },
}

/// What an operator computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// No edge at all: contributes nothing to its node.
    Absent,
    /// Passes its input on. Where stride or channels change: a 1x1 convolution with the
    /// stride, then BatchNorm.
    Identity,
    /// Layers one after another; with `residual`, the input is added at the end wherever
    /// stride is 1 and channels match.
    Layers {
        /// The layers, first to last.
        layers: Vec<Layer>,
        /// Add the input where shapes allow.
        residual: bool,
    },
    /// As [`Form::Identity`], with a ReLU after the BatchNorm of the 1x1 convolution: the skip of FBNet as
    /// HW-NAS-Bench (Li et al. 2021) has it.
    Skip,
}

impl Form {
    /// Whether the operator only passes its input on where stride is 1 and channels stay.
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::Identity | Self::Skip)
    }
}

/// A named operator of a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Name in space files, keys and tables: ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// What it computes.
    pub form: Form,
    /// How PyTorch image models (timm) writes it in an `arch_def`, with `{s}` for the stride and
    /// `{c}` for the output channels (`ir_r1_k3_s{s}_e6_c{c}`); absent where timm has no such block.
    pub timm: Option<String>,
}

impl Operator {
    /// Whether choosing this operator adds a layer to the network's depth.
    pub fn has_depth(&self) -> bool {
        matches!(self.form, Form::Layers { .. })
    }
}
