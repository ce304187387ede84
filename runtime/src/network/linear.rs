//! One operator in its linear form, for SynFlow: tensors of one image, `[C, H, W]`, on the host.

use nasbn_models::{
    Primitive,
    manifest::{Lowering, Port, Role},
    program::Step,
};

use super::{Network, unexpected};
use crate::engine::{EngineError, Feed, SharedTensor};

/// What an operator in its linear form gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Output.
    pub y: Vec<f32>,
    /// Gradient with respect to the input.
    pub dx: Vec<f32>,
    /// Sum over its convolutions and linear layers of the sum of output times gradient.
    pub flow: f64,
}

impl Network {
    /// The operator on an edge in its linear form (weights by magnitude, no BatchNorms, ReLUs or gates) on one
    /// image `x`, with the gradient `dy` of its output.
    ///
    /// # Errors
    /// If the bundle has no such graph, or it fails.
    pub fn linear(&mut self, edge: usize, operator: u8, x: &[f32], dy: &[f32]) -> Result<Linear, EngineError> {
        let steps = self.programs.get(&(edge, operator)).map(|p| p.steps.as_slice()).unwrap_or_default();
        if hands_on(steps) {
            return Ok(Linear { y: x.to_vec(), dx: dy.to_vec(), flow: 0.0 });
        }
        let flat = steps.last().is_some_and(|step| step.primitive == Primitive::Linear);
        let edge_of = &self.supernet.edges[edge];
        let (input, output) = (self.supernet.nodes[usize::from(edge_of.from)].shape, self.supernet.edge_shape(edge_of));
        let tensor = |values: &[f32], shape: nasbn_models::Shape, flat: bool| -> Result<SharedTensor, EngineError> {
            let [c, h, w] = [shape.channels, shape.height, shape.width].map(|extent| extent as usize);
            let dims = [1, c, h, w];
            let mut tensor = self.engine.zeros(if flat { &dims[..2] } else { &dims })?;
            match tensor.numbers_mut() {
                Some(numbers) if numbers.len() == values.len() => numbers.copy_from_slice(values),
                _ => return Err(EngineError::Tensor(format!("{} numbers do not fit {c} x {h} x {w}", values.len()))),
            }
            Ok(tensor)
        };
        let (x, dy) = (tensor(x, input, false)?, tensor(dy, output, flat)?);
        let graph = self.engine.find(Self::owner(edge, operator), Role::SynFlow, Lowering::Portable)?;
        let mut linear = Linear { y: Vec::new(), dx: Vec::new(), flow: 0.0 };
        let input = |port| match port {
            Port::X => Ok(Feed::Tensor(&x)),
            Port::Dy => Ok(Feed::Tensor(&dy)),
            other => Err(unexpected(other)),
        };
        self.engine.run(graph, input, |port, value| {
            let (_, values) = value.read()?;
            match port {
                Port::Y => linear.y = values.to_vec(),
                Port::Dx => linear.dx = values.to_vec(),
                Port::Flow(_) => linear.flow += values.iter().map(|&v| f64::from(v)).sum::<f64>(),
                other => return Err(unexpected(other)),
            }
            Ok(())
        })?;
        Ok(linear)
    }
}

/// Whether nothing but the input is left of a program in its linear form.
fn hands_on(steps: &[Step]) -> bool {
    let mut at = steps.len().saturating_sub(1);
    while let Some(step) = steps.get(at) {
        let input = |i: usize| step.inputs.get(i).map(|&position| usize::from(position));
        let is_gate = |position: usize| steps.get(position).is_some_and(|s| s.primitive == Primitive::Sigmoid);
        match (step.primitive, input(0)) {
            (Primitive::Input, _) => return true,
            (Primitive::BatchNorm | Primitive::Relu, Some(before)) => at = before,
            (Primitive::Mul, Some(before)) if input(1).is_some_and(is_gate) => at = before,
            _ => return false,
        }
    }
    true
}
