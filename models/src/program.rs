//! Programs: an operator on an edge whose shapes are known, as a list of primitives.
//!
//! This list is all that costs, the exporter and its gradients know of an operator.

use alloc::vec::Vec;

use crate::{BnPlacement, Form, Layer, Operator, Shape, Width};

/// A primitive operation of one or two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Primitive {
    /// The edge's input; always step 0, and only there.
    Input,
    /// Convolution, padded by `(kernel - 1) / 2`. Weight `[out, in / groups, kernel, kernel]`.
    Conv {
        /// Side of the kernel.
        kernel: u8,
        /// Stride.
        stride: u8,
        /// Groups; divides input and output channels. As many as there are channels: depthwise.
        groups: u32,
        /// Whether it has a bias `[out]`.
        bias: bool,
    },
    /// Batch normalisation over batch, height and width, with gamma and beta `[channels]`.
    BatchNorm,
    /// `max(x, 0)`.
    Relu,
    /// Logistic function.
    Sigmoid,
    /// Sum of two tensors of one shape.
    Add,
    /// Product of a tensor and a tensor of height and width 1, broadcast over pixels.
    Mul,
    /// Average pooling, padded by `(kernel - 1) / 2`; padding is not counted in the mean.
    AvgPool {
        /// Side of the window.
        kernel: u8,
        /// Stride.
        stride: u8,
    },
    /// Mean over height and width; the output keeps both at 1.
    GlobalAvgPool,
    /// Fully connected, weight `[out, in]`, bias `[out]`; input of height and width 1.
    /// In ONNX the output has rank 2, `[N, out]`.
    Linear,
    /// Channel `j groups + i` of the output is channel `i channels / groups + j` of the input.
    ChannelShuffle {
        /// Groups; divides the channels.
        groups: u32,
    },
}

/// One step of a program. Its value is named by its position in [`Program::steps`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What is computed.
    pub primitive: Primitive,
    /// Positions of the inputs; all smaller than the step's own.
    pub inputs: heapless::Vec<u16, 2>,
    /// Shape of the value, per sample.
    pub shape: Shape,
}

/// Steps in order; the last one is the output. An absent edge has no steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Why an operator does not fit an edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Kernel sides must be odd, 1 to 31.
    #[error("a kernel of side {0} is not possible; it must be odd and at most 31")]
    Kernel(u8),
    /// A depthwise convolution that would change its channels.
    #[error("a depthwise convolution keeps its channels, so its width must be `same`")]
    DepthwiseWidth,
    /// Groups that do not divide the channels.
    #[error(
        "a layer from {input} to {output} channels cannot have {groups} groups; they must be at least 1 and divide both \
         numbers (scaled channels are multiples of the space's `divisor`: make that a multiple of the groups)"
    )]
    Groups {
        /// The groups.
        groups: u32,
        /// Input channels.
        input: u32,
        /// Output channels.
        output: u32,
    },
    /// The layers end in another shape than the edge's.
    #[error("the layers end in {found}, but the edge leads to {expected}")]
    OutputShape {
        /// What the layers give.
        found: Shape,
        /// What the edge says.
        expected: Shape,
    },
    /// A fully connected layer on an image.
    #[error("a linear layer needs an input of 1x1 pixels (put a global average pool before it), not {0}")]
    LinearInput(Shape),
    /// More layers, channels or pixels than any network has.
    #[error("the operator is too large: {0}")]
    TooLarge(&'static str),
    /// An operator without layers.
    #[error("an operator of kind `layers` needs at least one layer")]
    Empty,
}

/// Extents beyond which a space is refused rather than computed with.
pub(crate) const MAX_EXTENT: u32 = 1 << 16;
const MAX_STEPS: usize = 256;

impl Program {
    /// The program of `operator` between `input` and `output` with `stride`.
    ///
    /// With `fair` (a candidate of a mixed edge under [`BnPlacement::EveryOperator`]) an operator
    /// that has no BatchNorm of its own gets one at its end (arXiv 2112.00265, section 3).
    pub fn build(
        operator: &Operator,
        input: Shape,
        output: Shape,
        stride: u8,
        fair: bool,
    ) -> Result<Self, ProgramError> {
        let mut builder = Builder::new(input, output, stride)?;
        match &operator.form {
            Form::Absent => return Ok(Self::default()),
            form @ (Form::Identity | Form::Skip) => {
                if stride != 1 || input.channels != output.channels {
                    builder.layer(Layer::Conv { kernel: 1, width: Width::Output, depthwise: false, strided: true })?;
                    builder.layer(Layer::BatchNorm)?;
                    if *form == Form::Skip {
                        builder.layer(Layer::Relu)?;
                    }
                }
            }
            Form::Layers { layers, residual } => {
                if layers.is_empty() {
                    return Err(ProgramError::Empty);
                }
                for &layer in layers {
                    builder.layer(layer)?;
                }
                if *residual && stride == 1 && input == builder.shape() {
                    let last = builder.last();
                    builder.push(Primitive::Add, &[last, 0], input)?;
                }
            }
        }
        if fair && !builder.steps.iter().any(|s| s.primitive == Primitive::BatchNorm) {
            builder.layer(Layer::BatchNorm)?;
        }
        if builder.shape() != output {
            return Err(ProgramError::OutputShape { found: builder.shape(), expected: output });
        }
        Ok(Self { steps: builder.steps })
    }

    /// Whether the edge is absent.
    pub fn is_absent(&self) -> bool {
        self.steps.is_empty()
    }

    /// Position of the output's step (0 for an absent edge).
    pub fn output(&self) -> u16 {
        self.steps.len().saturating_sub(1) as u16
    }

    /// Channels of every BatchNorm, in order.
    pub fn batch_norms(&self) -> impl Iterator<Item = u32> + '_ {
        self.steps.iter().filter(|s| s.primitive == Primitive::BatchNorm).map(|s| s.shape.channels)
    }

    /// Whether the signs after each BatchNorm, in order, decide what a ReLU lets through: a ReLU takes its output, or
    /// the operator is one that begins with its ReLU (ReLU, convolution, BN), so that the next one's takes it.
    pub fn rectified(&self) -> impl Iterator<Item = bool> + '_ {
        let relus = || self.steps.iter().filter(|s| s.primitive == Primitive::Relu).flat_map(|s| s.inputs.iter());
        let begins = relus().any(|&input| input == 0);
        let norms = self.steps.iter().enumerate().filter(|(_, s)| s.primitive == Primitive::BatchNorm);
        norms.map(move |(position, _)| begins || relus().any(|&input| usize::from(input) == position))
    }

    /// Activations of one sample whose signs decide what a ReLU lets through: see [`Program::rectified`].
    pub fn relu_units(&self) -> u64 {
        let norms = self.steps.iter().filter(|step| step.primitive == Primitive::BatchNorm);
        let units = norms.zip(self.rectified()).filter(|(_, rectified)| *rectified);
        units.map(|(step, _)| u64::from(step.shape.channels) * step.shape.pixels()).sum()
    }
}

/// The fairness rule as a predicate: whether candidates under `placement` get a BN each.
pub(crate) fn fair(placement: BnPlacement, mixed: bool) -> bool {
    mixed && placement == BnPlacement::EveryOperator
}

struct Builder {
    steps: Vec<Step>,
    input: Shape,
    output: Shape,
    stride: u8,
}

impl Builder {
    fn new(input: Shape, output: Shape, stride: u8) -> Result<Self, ProgramError> {
        let mut builder = Self { steps: Vec::new(), input, output, stride };
        builder.push(Primitive::Input, &[], input)?;
        Ok(builder)
    }

    fn last(&self) -> u16 {
        self.steps.len().saturating_sub(1) as u16
    }

    fn shape(&self) -> Shape {
        self.steps.last().map_or(self.input, |s| s.shape)
    }

    fn push(&mut self, primitive: Primitive, inputs: &[u16], shape: Shape) -> Result<u16, ProgramError> {
        if self.steps.len() >= MAX_STEPS {
            return Err(ProgramError::TooLarge("more than 256 primitives"));
        }
        let extents = [shape.channels, shape.height, shape.width];
        if extents.iter().any(|&e| e == 0 || e > MAX_EXTENT) {
            return Err(ProgramError::TooLarge("channels, height and width must be 1 to 65536"));
        }
        let inputs = heapless::Vec::from_slice(inputs).map_err(|_| ProgramError::TooLarge("more than two inputs"))?;
        self.steps.push(Step { primitive, inputs, shape });
        Ok(self.last())
    }

    fn channels(&self, width: Width) -> Result<u32, ProgramError> {
        match width {
            Width::Same => Some(self.shape().channels),
            Width::Output => Some(self.output.channels),
            Width::Expand(times) => self.input.channels.checked_mul(u32::from(times)),
            Width::Fixed(channels) => Some(channels),
        }
        .ok_or(ProgramError::TooLarge("channels overflow"))
    }

    fn conv(&mut self, kernel: u8, channels: u32, stride: u8, groups: u32, bias: bool) -> Result<u16, ProgramError> {
        let shape = windowed(self.shape(), channels, kernel, stride)?;
        let last = self.last();
        self.push(Primitive::Conv { kernel, stride, groups, bias }, &[last], shape)
    }

    fn layer(&mut self, layer: Layer) -> Result<(), ProgramError> {
        let shape = self.shape();
        let last = self.last();
        let stride_of = |strided: bool| if strided { self.stride } else { 1 };
        match layer {
            Layer::Conv { kernel, width, depthwise, strided } => {
                let stride = stride_of(strided);
                let channels = self.channels(width)?;
                if depthwise && channels != shape.channels {
                    return Err(ProgramError::DepthwiseWidth);
                }
                let groups = if depthwise { channels } else { 1 };
                self.conv(kernel, channels, stride, groups, false)?;
            }
            Layer::BatchNorm => {
                self.push(Primitive::BatchNorm, &[last], shape)?;
            }
            Layer::Relu => {
                self.push(Primitive::Relu, &[last], shape)?;
            }
            Layer::AvgPool { kernel, strided } => {
                let stride = stride_of(strided);
                let pooled = windowed(shape, shape.channels, kernel, stride)?;
                self.push(Primitive::AvgPool { kernel, stride }, &[last], pooled)?;
            }
            Layer::SqueezeExcitation { divisor } => {
                let squeezed = (self.input.channels / u32::from(divisor.max(1))).max(1);
                self.push(Primitive::GlobalAvgPool, &[last], Shape::new(shape.channels, 1, 1))?;
                let hidden = self.conv(1, squeezed, 1, 1, true)?;
                self.push(Primitive::Relu, &[hidden], Shape::new(squeezed, 1, 1))?;
                let gate = self.conv(1, shape.channels, 1, 1, true)?;
                let gate = self.push(Primitive::Sigmoid, &[gate], Shape::new(shape.channels, 1, 1))?;
                self.push(Primitive::Mul, &[last, gate], shape)?;
            }
            Layer::GlobalAvgPool => {
                self.push(Primitive::GlobalAvgPool, &[last], Shape::new(shape.channels, 1, 1))?;
            }
            Layer::Linear { width } => {
                if shape.pixels() != 1 {
                    return Err(ProgramError::LinearInput(shape));
                }
                let features = self.channels(width)?;
                self.push(Primitive::Linear, &[last], Shape::new(features, 1, 1))?;
            }
            Layer::GroupedConv { kernel, width, groups, strided } => {
                let channels = self.channels(width)?;
                divide(groups, shape.channels, channels)?;
                self.conv(kernel, channels, stride_of(strided), groups, false)?;
            }
            Layer::ChannelShuffle { groups } => {
                divide(groups, shape.channels, shape.channels)?;
                self.push(Primitive::ChannelShuffle { groups }, &[last], shape)?;
            }
        }
        Ok(())
    }
}

/// Whether groups cut both numbers of channels into equal parts.
fn divide(groups: u32, input: u32, output: u32) -> Result<(), ProgramError> {
    match groups > 0 && input.is_multiple_of(groups) && output.is_multiple_of(groups) {
        true => Ok(()),
        false => Err(ProgramError::Groups { groups, input, output }),
    }
}

/// Shape after a window of side `kernel`, padded by `(kernel - 1) / 2`, moved by `stride`.
fn windowed(input: Shape, channels: u32, kernel: u8, stride: u8) -> Result<Shape, ProgramError> {
    if kernel.is_multiple_of(2) || kernel > 31 {
        return Err(ProgramError::Kernel(kernel));
    }
    let stride = u32::from(stride.max(1));
    Ok(Shape::new(channels, input.height.div_ceil(stride), input.width.div_ceil(stride)))
}
