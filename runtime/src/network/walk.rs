//! Walks over the edges of a path, forwards and backwards, and what happens at its nodes.

use std::rc::Rc;

use nasbn_models::{
    Combine, Path,
    manifest::{Lowering, Owner, Port, Role},
};
use ndarray::ArrayView4;
use ort::{
    session::SessionInputValue,
    value::{DynValue, Tensor},
};

use super::{Network, Steps, passes_on, take, unexpected};
use crate::engine::EngineError;

/// Runs an operator on an edge: network, edge, operator and input give the output.
pub(super) type RunEdge<'a> =
    dyn FnMut(&mut Network, usize, u8, &Rc<DynValue>) -> Result<Rc<DynValue>, EngineError> + 'a;

/// Runs an operator on an edge backwards: network, edge, operator and gradient of the output (none if the output leads
/// nowhere) give the gradient of the input.
pub(super) type RunBack<'a> =
    dyn FnMut(&mut Network, usize, u8, Option<&DynValue>) -> Result<Option<DynValue>, EngineError> + 'a;

/// A value that stands on a node while a pass runs.
type Held = Option<Rc<DynValue>>;

/// Where a walk stands before an edge.
#[derive(Clone)]
pub(super) struct Standing {
    /// Values of nodes that later edges start from.
    held: Vec<Held>,
    /// Values of edges before this one that lead to the same node.
    parts: Vec<Held>,
}

impl Network {
    /// Walks the edges of a path in order, as far as the node `last`, and joins them at nodes. Every
    /// tensor is dropped after its last use. With `steps`, the walk begins at the last standing of these and leaves its
    /// own before the edges as far as [`Steps::upto`].
    pub(super) fn walk(
        &mut self,
        last: usize,
        path: &Path,
        images: ArrayView4<'_, f32>,
        lowering: Lowering,
        mut steps: Option<&mut Steps>,
        run: &mut RunEdge<'_>,
    ) -> Result<Rc<DynValue>, EngineError> {
        let batch = images.shape()[0];
        let (mut first, mut begin) = (0, None);
        if let Some(Steps { standings, upto, .. }) = steps.as_deref_mut() {
            (first, begin) = (standings.len().saturating_sub(1), standings.last().cloned());
            standings.truncate(*upto + 1);
        }
        let mut standing = match begin {
            Some(standing) => standing,
            None => self.at_the_image(images)?,
        };
        // Edges are sorted by where they lead.
        let count = self.supernet.edges.partition_point(|edge| usize::from(edge.to) <= last);
        let edges = self.supernet.edges[..count].to_vec();
        for (e, edge) in edges.iter().enumerate().skip(first) {
            if let Some(Steps { standings, upto, .. }) = steps.as_deref_mut()
                && e <= *upto
                && e == standings.len()
            {
                standings.push(standing.clone());
            }
            let Standing { held, parts } = &mut standing;
            let from = usize::from(edge.from);
            let to = usize::from(edge.to);
            let operator = self.supernet.operator_on(edge, path);
            let program = self.programs.get(&(e, operator)).cloned().unwrap_or_default();
            let value = if program.is_absent() {
                None
            } else {
                let x = match &held[from] {
                    Some(x) => Rc::clone(x),
                    None => self.zeros(batch, self.supernet.nodes[from].shape, lowering)?,
                };
                Some(if passes_on(&program) { x } else { run(self, e, operator, &x)? })
            };
            parts.push(value);
            if edges.get(e + 1).is_none_or(|next| next.to != edge.to) {
                let joined = self.join(to, e + 1 - parts.len(), parts, batch, lowering)?;
                held[to] = joined;
                parts.clear();
            }
            if from != last && !edges[e + 1..].iter().any(|later| later.from == edge.from) {
                held[from] = None;
            }
        }
        let value = standing.held.swap_remove(last);
        value.ok_or_else(|| EngineError::Tensor(format!("the path does not lead to node {last}")))
    }

    fn at_the_image(&self, images: ArrayView4<'_, f32>) -> Result<Standing, EngineError> {
        let mut held: Vec<Held> = vec![None; self.supernet.nodes.len()];
        // The copy keeps the image alive as a value of its own for the whole pass.
        held[0] = Some(Rc::new(Tensor::from_array(images.to_owned())?.into_dyn()));
        Ok(Standing { held, parts: Vec::new() })
    }

    /// Joins the parts (one per incoming edge from `first` on) at a node.
    fn join(
        &mut self,
        node: usize,
        first: usize,
        parts: &[Held],
        batch: usize,
        lowering: Lowering,
    ) -> Result<Held, EngineError> {
        if self.supernet.nodes[node].combine == Combine::Concat && parts.len() > 1 {
            let mut whole = Vec::with_capacity(parts.len());
            for (i, part) in parts.iter().enumerate() {
                let shape = self.supernet.edge_shape(&self.supernet.edges[first + i]);
                whole.push(match part {
                    Some(part) => Rc::clone(part),
                    None => self.zeros(batch, shape, lowering)?,
                });
            }
            let graph = self.engine.find(Owner::Node(node as u16), Role::Concat, lowering)?;
            let outputs = self.engine.run(graph, |port| match port {
                Port::Part(i) => Ok(SessionInputValue::from(&*whole[usize::from(i)])),
                other => Err(unexpected(other)),
            })?;
            return take(outputs, Port::Y).map(|y| Some(Rc::new(y)));
        }
        let mut sum: Held = None;
        for part in parts.iter().flatten() {
            sum = Some(match sum {
                None => Rc::clone(part),
                Some(sum) => Rc::new(self.add(&sum, part)?),
            });
        }
        Ok(sum)
    }

    fn add(&mut self, a: &DynValue, b: &DynValue) -> Result<DynValue, EngineError> {
        let graph = self.engine.find(Owner::Network, Role::Sum, Lowering::Portable)?;
        let outputs = self.engine.run(graph, |port| match port {
            Port::Part(0) => Ok(SessionInputValue::from(a)),
            Port::Part(1) => Ok(SessionInputValue::from(b)),
            other => Err(unexpected(other)),
        })?;
        take(outputs, Port::Y)
    }

    fn zeros(&self, batch: usize, shape: nasbn_models::Shape, lowering: Lowering) -> Result<Rc<DynValue>, EngineError> {
        let (c, h, w) = (shape.channels as usize, shape.height as usize, shape.width as usize);
        let dims = if lowering == Lowering::Fused { [batch, h, w, c] } else { [batch, c, h, w] };
        Ok(Rc::new(Tensor::from_array((dims, vec![0.0f32; batch * c * h * w]))?.into_dyn()))
    }

    /// Walks the edges of a path from last to first, hands every operator the gradient of its output, and sums what comes
    /// back at nodes. `dlogits` is the gradient of the logits. An operator whose output leads nowhere gets none.
    pub(super) fn walk_back(
        &mut self,
        path: &Path,
        dlogits: Rc<DynValue>,
        run: &mut RunBack<'_>,
    ) -> Result<(), EngineError> {
        let mut held: Vec<Held> = vec![None; self.supernet.nodes.len()];
        if let Some(last) = held.last_mut() {
            *last = Some(dlogits);
        }
        let edges = self.supernet.edges.clone();
        let mut split: Vec<Held> = Vec::new();
        for (e, edge) in edges.iter().enumerate().rev() {
            let to = usize::from(edge.to);
            let first = edges.iter().position(|other| other.to == edge.to).unwrap_or(e);
            let last_of_node = edges.get(e + 1).is_none_or(|next| next.to != edge.to);
            if last_of_node {
                split = self.split(to, e + 1 - first, held[to].take())?;
            }
            let operator = self.supernet.operator_on(edge, path);
            let program = self.programs.get(&(e, operator)).cloned().unwrap_or_default();
            let dy = split[e - first].take();
            let dx = if program.is_absent() {
                None
            } else if passes_on(&program) {
                dy
            } else {
                run(self, e, operator, dy.as_deref())?.map(Rc::new)
            };
            let from = usize::from(edge.from);
            if let (Some(dx), true) = (dx, from != 0) {
                held[from] = Some(match held[from].take() {
                    None => dx,
                    Some(present) => Rc::new(self.add(&present, &dx)?),
                });
            }
        }
        Ok(())
    }

    /// Gradient of a node for each of its `count` incoming edges.
    fn split(&mut self, node: usize, count: usize, dy: Held) -> Result<Vec<Held>, EngineError> {
        let Some(dy) = dy else { return Ok(vec![None; count]) };
        if self.supernet.nodes[node].combine == Combine::Sum || count == 1 {
            return Ok(vec![Some(dy); count]);
        }
        let graph = self.engine.find(Owner::Node(node as u16), Role::Split, self.options.lowering)?;
        let outputs = self.engine.run(graph, |port| match port {
            Port::Dy => Ok(SessionInputValue::from(&*dy)),
            other => Err(unexpected(other)),
        })?;
        let mut parts = vec![None; count];
        for (port, value) in outputs {
            match port {
                Port::Part(i) if usize::from(i) < count => parts[usize::from(i)] = Some(Rc::new(value)),
                other => return Err(unexpected(other)),
            }
        }
        Ok(parts)
    }
}
