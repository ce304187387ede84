//! The primitives, and where the rules of each are.

use nasbn_models::manifest::Port;
use ndarray::ArrayD;

use super::{
    Dims, Graph, GraphError, Value,
    ops::{batch_norm, conv, linear, loss, pointwise, pool, shuffle, signs},
};

/// How a square window moves over an image that is padded by `(kernel - 1) / 2` on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Side of the window; odd.
    pub kernel: u32,
    /// Stride; at least 1.
    pub stride: u32,
}

impl Window {
    /// Padding on every side.
    pub fn pad(self) -> u32 {
        self.kernel.saturating_sub(1) / 2
    }

    /// Extent after the window has moved over `extent` pixels.
    pub fn output(self, extent: u32) -> u32 {
        extent.div_ceil(self.stride.max(1))
    }
}

/// A part of a BatchNorm with constant statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BnPart {
    /// Scale.
    Gamma,
    /// Shift.
    Beta,
    /// Running mean.
    Mean,
    /// Running variance.
    Var,
}

impl BnPart {
    /// Name of the part of BatchNorm number `bn` within the operator: `bn0.running_mean`.
    pub fn name(self, bn: u16) -> String {
        let part = match self {
            Self::Gamma => "gamma",
            Self::Beta => "beta",
            Self::Mean => "running_mean",
            Self::Var => "running_var",
        };
        format!("bn{bn}.{part}")
    }
}

/// What is constant in an inference graph beside frozen weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// A convolution's weight (by its name) times the scale of the BatchNorm after it.
    FoldedWeight {
        /// Name of the weight.
        weight: String,
        /// Which BatchNorm.
        bn: u16,
    },
    /// The bias that a BatchNorm becomes.
    FoldedBias {
        /// Name of the convolution's weight.
        weight: String,
        /// Which BatchNorm.
        bn: u16,
    },
    /// A parameter of a BatchNorm that is not folded.
    Bn {
        /// Which BatchNorm.
        bn: u16,
        /// Which parameter.
        part: BnPart,
    },
}

/// A primitive. Inputs and outputs are listed in order; `g` is the gradient of the loss with
/// respect to the output of the primitive that is differentiated.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An input of the graph.
    Input(Port),
    /// A frozen weight, by its name within the operator (`conv0.weight`).
    Weight(String),
    /// A constant of an inference graph.
    Constant(Constant),
    /// The scalar 1, where differentiation of a loss starts.
    One,
    /// Convolution without bias: x, w -> y. With bias: x, w, b -> y.
    Conv {
        /// The window.
        window: Window,
        /// Groups.
        groups: u32,
    },
    /// Gradient of [`Op::Conv`] with respect to x: g, w -> dx.
    ConvInputGrad {
        /// The window.
        window: Window,
        /// Groups.
        groups: u32,
        /// Height of x.
        height: u32,
        /// Width of x.
        width: u32,
    },
    /// BatchNorm with the statistics of the batch: x, gamma, beta, (residual) -> y, mean, var.
    BatchNormTrain {
        /// Whether a ReLU follows inside the primitive (fused lowering only).
        relu: bool,
    },
    /// Gradients of [`Op::BatchNormTrain`]: g, x, gamma, mean, var -> dx, dgamma, dbeta.
    BatchNormTrainGrad {
        /// Whether a ReLU is differentiated along (fused lowering only); its mask needs beta as a sixth input.
        relu: bool,
    },
    /// BatchNorm with given statistics: x, gamma, beta, mean, var, (residual) -> y.
    BatchNormApply {
        /// Whether a ReLU follows inside the primitive (fused lowering only).
        relu: bool,
    },
    /// Gradients of [`Op::BatchNormApply`], of gamma and beta a row a sample: g, x, gamma, mean, var -> dx, dgamma
    /// `[N, C]`, dbeta `[N, C]`.
    BatchNormApplyGrad {
        /// Whether a ReLU is differentiated along (fused lowering only); its mask needs beta as a sixth input.
        relu: bool,
    },
    /// `max(x, 0)`: x -> y.
    Relu,
    /// g where y > 0, else 0: g, y -> dx.
    ReluGrad,
    /// `1 / (1 + exp(-x))`: x -> y.
    Sigmoid,
    /// `g y (1 - y)`: g, y -> dx.
    SigmoidGrad,
    /// Sum of two values of one shape.
    Add,
    /// Product of two values of one shape, or of an image and a gate of one pixel.
    Mul,
    /// Sum over height and width: x -> `[N, C, 1, 1]`.
    SumPixels,
    /// Average pooling; padding is not counted: x -> y.
    AvgPool(Window),
    /// Gradient of [`Op::AvgPool`]: g -> dx.
    AvgPoolGrad {
        /// The window.
        window: Window,
        /// Height of x.
        height: u32,
        /// Width of x.
        width: u32,
    },
    /// Mean over height and width: x -> `[N, C, 1, 1]`.
    GlobalAvgPool,
    /// Gradient of [`Op::GlobalAvgPool`]: g -> dx.
    GlobalAvgPoolGrad {
        /// Height of x.
        height: u32,
        /// Width of x.
        width: u32,
    },
    /// `[N, F, 1, 1]` -> `[N, F]`.
    Flatten,
    /// `[N, F]` -> `[N, F, 1, 1]`.
    Unflatten,
    /// Fully connected: x `[N, I]`, w `[O, I]`, b `[O]` -> y `[N, O]`.
    Linear,
    /// Gradient of [`Op::Linear`] with respect to x: g, w -> dx.
    LinearInputGrad,
    /// Softmax cross-entropy: logits `[N, K]`, labels `[N]` -> mean loss, loss of every sample `[N]`.
    SoftmaxCrossEntropy,
    /// Gradient of the mean loss with respect to the logits: g (scalar), logits, labels -> dlogits.
    SoftmaxCrossEntropyGrad,
    /// In how many places two samples are both above zero, or both not: x -> `[N, N]`. In the fused lowering after a
    /// BatchNorm with given statistics: x, gamma, beta, mean, var -> `[N, N]`.
    SignAgreement,
    /// Channel `j groups + i` of y is channel `i channels / groups + j` of x: x -> y.
    ChannelShuffle {
        /// Groups; divides the channels.
        groups: u32,
    },
}

/// What a vector-Jacobian rule works with: a node, the gradients of its outputs so far, and which
/// of its inputs' gradients are asked for.
pub struct Vjp<'g> {
    /// The graph, to which the rule adds nodes.
    pub graph: &'g mut Graph,
    /// Inputs of the node.
    pub inputs: Vec<Value>,
    /// First output of the node.
    pub output: Value,
    /// Gradients of its outputs; `None` is zero.
    pub gradients: Vec<Option<Value>>,
    /// Which inputs depend on what is differentiated by.
    pub wanted: Vec<bool>,
}

/// Gradients of a node's inputs; `None` is zero or not asked for.
pub type InputGradients = Vec<Option<Value>>;

impl Op {
    /// Name for messages and node names.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "Input",
            Self::Weight(_) => "Weight",
            Self::Constant(_) => "Constant",
            Self::One => "One",
            Self::Conv { .. } => "Conv",
            Self::ConvInputGrad { .. } => "ConvInputGrad",
            Self::BatchNormTrain { .. } => "BatchNormTrain",
            Self::BatchNormTrainGrad { .. } => "BatchNormTrainGrad",
            Self::BatchNormApply { .. } => "BatchNormApply",
            Self::BatchNormApplyGrad { .. } => "BatchNormApplyGrad",
            Self::Relu => "Relu",
            Self::ReluGrad => "ReluGrad",
            Self::Sigmoid => "Sigmoid",
            Self::SigmoidGrad => "SigmoidGrad",
            Self::Add => "Add",
            Self::Mul => "Mul",
            Self::SumPixels => "SumPixels",
            Self::AvgPool(_) => "AvgPool",
            Self::AvgPoolGrad { .. } => "AvgPoolGrad",
            Self::GlobalAvgPool => "GlobalAvgPool",
            Self::GlobalAvgPoolGrad { .. } => "GlobalAvgPoolGrad",
            Self::Flatten => "Flatten",
            Self::Unflatten => "Unflatten",
            Self::Linear => "Linear",
            Self::LinearInputGrad => "LinearInputGrad",
            Self::SoftmaxCrossEntropy => "SoftmaxCrossEntropy",
            Self::SoftmaxCrossEntropyGrad => "SoftmaxCrossEntropyGrad",
            Self::SignAgreement => "SignAgreement",
            Self::ChannelShuffle { .. } => "ChannelShuffle",
        }
    }

    /// Extents of the outputs for inputs of these extents.
    pub(super) fn dims(&self, inputs: &[&Dims]) -> Result<Vec<Dims>, GraphError> {
        let dims = match self {
            Self::Input(_) | Self::Weight(_) | Self::Constant(_) | Self::One => None,
            Self::Conv { .. } | Self::ConvInputGrad { .. } => conv::dims(self, inputs),
            Self::BatchNormTrain { .. }
            | Self::BatchNormTrainGrad { .. }
            | Self::BatchNormApply { .. }
            | Self::BatchNormApplyGrad { .. } => batch_norm::dims(self, inputs),
            Self::Relu | Self::ReluGrad | Self::Sigmoid | Self::SigmoidGrad | Self::Add | Self::Mul => {
                pointwise::dims(self, inputs)
            }
            Self::SumPixels
            | Self::AvgPool(_)
            | Self::AvgPoolGrad { .. }
            | Self::GlobalAvgPool
            | Self::GlobalAvgPoolGrad { .. } => pool::dims(self, inputs),
            Self::Flatten | Self::Unflatten | Self::Linear | Self::LinearInputGrad => linear::dims(self, inputs),
            Self::SoftmaxCrossEntropy | Self::SoftmaxCrossEntropyGrad => loss::dims(self, inputs),
            Self::SignAgreement => signs::dims(inputs),
            Self::ChannelShuffle { groups } => shuffle::dims(*groups, inputs),
        };
        dims.ok_or_else(|| GraphError::Shape {
            op: self.name(),
            problem: format!("its inputs have the shapes {inputs:?}"),
        })
    }

    /// Reference values of the outputs.
    pub(super) fn evaluate(&self, inputs: &[&ArrayD<f64>], epsilon: f64) -> Result<Vec<ArrayD<f64>>, GraphError> {
        let values = match self {
            Self::Input(_) | Self::Weight(_) | Self::Constant(_) => None,
            Self::One => Some(vec![ArrayD::from_elem(ndarray::IxDyn(&[]), 1.0)]),
            Self::Conv { .. } | Self::ConvInputGrad { .. } => conv::evaluate(self, inputs),
            Self::BatchNormTrain { .. }
            | Self::BatchNormTrainGrad { .. }
            | Self::BatchNormApply { .. }
            | Self::BatchNormApplyGrad { .. } => batch_norm::evaluate(self, inputs, epsilon),
            Self::Relu | Self::ReluGrad | Self::Sigmoid | Self::SigmoidGrad | Self::Add | Self::Mul => {
                pointwise::evaluate(self, inputs)
            }
            Self::SumPixels
            | Self::AvgPool(_)
            | Self::AvgPoolGrad { .. }
            | Self::GlobalAvgPool
            | Self::GlobalAvgPoolGrad { .. } => pool::evaluate(self, inputs),
            Self::Flatten | Self::Unflatten | Self::Linear | Self::LinearInputGrad => linear::evaluate(self, inputs),
            Self::SoftmaxCrossEntropy | Self::SoftmaxCrossEntropyGrad => loss::evaluate(self, inputs),
            Self::SignAgreement => signs::evaluate(inputs, epsilon),
            Self::ChannelShuffle { groups } => shuffle::evaluate(*groups, inputs),
        };
        values.ok_or_else(|| GraphError::Shape {
            op: self.name(),
            problem: format!("its inputs have the shapes {:?}", inputs.iter().map(|a| a.shape()).collect::<Vec<_>>()),
        })
    }

    /// Adds the nodes that give the gradients of the inputs.
    pub(crate) fn vjp(&self, rule: &mut Vjp<'_>) -> Result<InputGradients, GraphError> {
        match self {
            Self::Input(_) | Self::Weight(_) | Self::Constant(_) | Self::One => Ok(Vec::new()),
            Self::Conv { .. } => conv::vjp(self, rule),
            Self::BatchNormTrain { relu: false } => batch_norm::vjp(self, rule),
            Self::BatchNormApply { relu: false } => batch_norm::vjp_of_samples(self, rule),
            Self::Relu | Self::Sigmoid | Self::Add | Self::Mul => pointwise::vjp(self, rule),
            Self::SumPixels | Self::AvgPool(_) | Self::GlobalAvgPool => pool::vjp(self, rule),
            Self::Flatten | Self::Unflatten | Self::Linear => linear::vjp(self, rule),
            Self::SoftmaxCrossEntropy => loss::vjp(self, rule),
            Self::ChannelShuffle { groups } => shuffle::vjp(*groups, rule),
            _ => Err(GraphError::NotDifferentiable {
                op: self.name(),
                problem: "only the primitives of a forward pass have gradients",
            }),
        }
    }
}
