//! An operator's program as a graph with batch statistics.

use nasbn_models::{Primitive, Program, manifest::Port, program::Step};

use super::{Dims, Graph, GraphError, Op, Value, Window};

/// The values around one BatchNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BnValues {
    /// What it normalises.
    pub x: Value,
    /// Its scale.
    pub gamma: Value,
    /// Its shift.
    pub beta: Value,
    /// Its output; mean and variance are siblings 1 and 2.
    pub y: Value,
}

/// The forward pass of an operator, with what its gradients are taken of.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The graph, without outputs.
    pub graph: Graph,
    /// The operator's input.
    pub x: Value,
    /// The operator's output.
    pub y: Value,
    /// Its BatchNorms, in program order.
    pub batch_norms: Vec<BnValues>,
}

impl Graph {
    /// The forward pass of `program` with batch statistics.
    ///
    /// # Errors
    /// If the program is absent or its shapes contradict each other; never for a program of
    /// [`Program::build`].
    pub fn from_program(program: &Program) -> Result<Forward, GraphError> {
        let Some(first) = program.steps.first() else {
            return Err(GraphError::Shape { op: "Program", problem: "an absent edge computes nothing".into() });
        };
        let mut graph = Self::new();
        let x = graph.leaf(Op::Input(Port::X), Dims::Image(first.shape));
        let mut builder = Builder { graph, values: vec![x], batch_norms: Vec::new(), convs: 0, linears: 0 };
        for (position, step) in program.steps.iter().enumerate().skip(1) {
            let last = position + 1 == program.steps.len();
            let value = builder.step(step, last)?;
            builder.values.push(value);
        }
        let y = builder.values.last().copied().unwrap_or(x);
        Ok(Forward { graph: builder.graph, x, y, batch_norms: builder.batch_norms })
    }
}

struct Builder {
    graph: Graph,
    /// Value of every step so far.
    values: Vec<Value>,
    batch_norms: Vec<BnValues>,
    convs: usize,
    linears: usize,
}

impl Builder {
    fn channels(&self, value: Value) -> Result<u32, GraphError> {
        match self.graph.dims(value)? {
            Dims::Image(shape) => Ok(shape.channels),
            other => Err(GraphError::Shape { op: "Program", problem: format!("{other:?} is no image") }),
        }
    }

    fn weight(&mut self, name: String, dims: Vec<u32>) -> Value {
        self.graph.leaf(Op::Weight(name), Dims::Fixed(dims))
    }

    fn step(&mut self, step: &Step, last: bool) -> Result<Value, GraphError> {
        let inputs = step.inputs.iter().map(|&i| self.values.get(usize::from(i)).copied());
        let mut inputs = inputs.collect::<Option<Vec<_>>>().ok_or(GraphError::Unknown(self.values.len()))?;
        let input = inputs.first().copied().ok_or(GraphError::Unknown(self.values.len()))?;
        let out = step.shape.channels;
        let op = match step.primitive {
            Primitive::Input => {
                return Err(GraphError::Shape { op: "Program", problem: "the input is step 0 and only that".into() });
            }
            Primitive::Conv { kernel, stride, groups, bias } => {
                let per_group = self.channels(input)? / groups.max(1);
                let kernel = u32::from(kernel);
                let name = format!("conv{}", self.convs);
                self.convs += 1;
                inputs.push(self.weight(format!("{name}.weight"), vec![out, per_group, kernel, kernel]));
                if bias {
                    inputs.push(self.weight(format!("{name}.bias"), vec![out]));
                }
                Op::Conv { window: Window { kernel, stride: u32::from(stride.max(1)) }, groups: groups.max(1) }
            }
            Primitive::BatchNorm => {
                let index = self.batch_norms.len() as u16;
                let gamma = self.graph.leaf(Op::Input(Port::Gamma(index)), Dims::vector(out));
                let beta = self.graph.leaf(Op::Input(Port::Beta(index)), Dims::vector(out));
                let y = self.graph.apply(Op::BatchNormTrain { relu: false }, &[input, gamma, beta])?;
                self.batch_norms.push(BnValues { x: input, gamma, beta, y });
                return Ok(y);
            }
            Primitive::Relu => Op::Relu,
            Primitive::Sigmoid => Op::Sigmoid,
            Primitive::Add => Op::Add,
            Primitive::Mul => Op::Mul,
            Primitive::AvgPool { kernel, stride } => {
                Op::AvgPool(Window { kernel: u32::from(kernel), stride: u32::from(stride.max(1)) })
            }
            Primitive::GlobalAvgPool => Op::GlobalAvgPool,
            Primitive::ChannelShuffle { groups } => Op::ChannelShuffle { groups: groups.max(1) },
            Primitive::Linear => {
                let features = self.channels(input)?;
                let name = format!("linear{}", self.linears);
                self.linears += 1;
                let flat = self.graph.apply(Op::Flatten, &[input])?;
                let weight = self.weight(format!("{name}.weight"), vec![out, features]);
                let bias = self.weight(format!("{name}.bias"), vec![out]);
                let y = self.graph.apply(Op::Linear, &[flat, weight, bias])?;
                return if last { Ok(y) } else { self.graph.apply(Op::Unflatten, &[y]) };
            }
        };
        self.graph.apply(op, &inputs)
    }
}
