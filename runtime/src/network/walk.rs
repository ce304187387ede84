//! Walks over the edges of a path, forwards and backwards, and what happens at its nodes.

use std::mem;

use nasbn_models::{
    Combine, Path,
    manifest::{Lowering, Owner, Port, Role},
};
use ndarray::ArrayView4;

use super::{Network, Steps, take, unexpected};
use crate::engine::{EngineError, Feed, SharedTensor};

/// Runs an operator on an edge: network, edge, operator and input give the output.
pub(super) type RunEdge<'a> =
    dyn FnMut(&mut Network, usize, u8, &SharedTensor) -> Result<SharedTensor, EngineError> + 'a;

/// Runs an operator on an edge backwards: network, edge, operator and gradient of the output (none if the output leads
/// nowhere) give the gradient of the input.
pub(super) type RunBack<'a> =
    dyn FnMut(&mut Network, usize, u8, Option<&SharedTensor>) -> Result<Option<SharedTensor>, EngineError> + 'a;

/// A value that stands on a node while a pass runs.
pub(super) type Held = Option<SharedTensor>;

/// Where a walk stands before an edge.
#[derive(Clone, Default)]
pub(super) struct Standing {
    /// Values of nodes that later edges start from.
    held: Vec<Held>,
    /// Values of edges before this one that lead to the same node.
    parts: Vec<Held>,
}

/// What an operator does with its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: there is no edge.
    Absent,
    /// It passes it on.
    PassesOn,
    /// Its graph is run.
    Runs,
}

impl Network {
    fn kind(&self, edge: usize, operator: u8) -> Kind {
        match self.programs.get(&(edge, operator)) {
            None => Kind::Absent,
            Some(program) if program.is_absent() => Kind::Absent,
            Some(program) if super::passes_on(program) => Kind::PassesOn,
            Some(_) => Kind::Runs,
        }
    }

    /// Walks the edges of a path in order, as far as the node `last`, and joins them at nodes; its value stays where the graphs
    /// leave it. Every tensor is dropped after its last use. With `steps`, the walk begins at the last standing of these and
    /// leaves its own before the edges as far as [`Steps::upto`].
    pub(super) fn walk(
        &mut self,
        last: usize,
        path: &Path,
        images: ArrayView4<'_, f32>,
        lowering: Lowering,
        mut steps: Option<&mut Steps>,
        run: &mut RunEdge<'_>,
    ) -> Result<SharedTensor, EngineError> {
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
        for e in first..count {
            if let Some(Steps { standings, upto, .. }) = steps.as_deref_mut()
                && e <= *upto
                && e == standings.len()
            {
                standings.push(standing.clone());
            }
            let edge = self.supernet.edges[e];
            let Standing { held, parts } = &mut standing;
            let (from, to) = (usize::from(edge.from), usize::from(edge.to));
            let operator = self.supernet.operator_on(&edge, path);
            let kind = self.kind(e, operator);
            let value = if kind == Kind::Absent {
                None
            } else {
                let x = match &held[from] {
                    Some(x) => x.clone(),
                    None => self.zeros(batch, self.supernet.nodes[from].shape, lowering)?,
                };
                Some(if kind == Kind::PassesOn { x } else { run(self, e, operator, &x)? })
            };
            parts.push(value);
            let later = &self.supernet.edges[e + 1..count];
            let ends_node = later.first().is_none_or(|next| next.to != edge.to);
            let is_last_use = from != last && !later.iter().any(|later| later.from == edge.from);
            if ends_node {
                let joined = self.join(to, e + 1 - parts.len(), parts, batch, lowering)?;
                held[to] = joined;
                parts.clear();
            }
            if is_last_use {
                held[from] = None;
            }
        }
        let value = standing.held.get_mut(last).and_then(Option::take);
        standing.held.clear();
        self.spare.standing = standing;
        value.ok_or_else(|| EngineError::Tensor(format!("the path does not lead to node {last}")))
    }

    fn at_the_image(&mut self, images: ArrayView4<'_, f32>) -> Result<Standing, EngineError> {
        let image = self.image(images)?;
        let mut standing = mem::take(&mut self.spare.standing);
        standing.parts.clear();
        standing.held.clear();
        standing.held.resize(self.supernet.nodes.len(), None);
        standing.held[0] = Some(image);
        Ok(standing)
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
            let mut whole = mem::take(&mut self.spare.whole);
            for (i, part) in parts.iter().enumerate() {
                let shape = self.supernet.edge_shape(&self.supernet.edges[first + i]);
                whole.push(match part {
                    Some(part) => part.clone(),
                    None => self.zeros(batch, shape, lowering)?,
                });
            }
            let graph = self.engine.find(Owner::Node(node as u16), Role::Concat, lowering)?;
            let mut y = None;
            let input = |port| match port {
                Port::Part(i) => whole.get(usize::from(i)).map(Feed::Tensor).ok_or_else(|| unexpected(port)),
                other => Err(unexpected(other)),
            };
            self.engine.run(graph, input, |port, value| take(port, value, Port::Y, &mut y))?;
            whole.clear();
            self.spare.whole = whole;
            return y.map(Some).ok_or_else(|| unexpected(Port::Y));
        }
        let mut sum: Held = None;
        for part in parts.iter().flatten() {
            sum = Some(match sum {
                None => part.clone(),
                Some(sum) => self.add(&sum, part)?,
            });
        }
        Ok(sum)
    }

    fn add(&mut self, a: &SharedTensor, b: &SharedTensor) -> Result<SharedTensor, EngineError> {
        let graph = self.engine.find(Owner::Network, Role::Sum, Lowering::Portable)?;
        let mut y = None;
        let input = |port| match port {
            Port::Part(0) => Ok(Feed::Tensor(a)),
            Port::Part(1) => Ok(Feed::Tensor(b)),
            other => Err(unexpected(other)),
        };
        self.engine.run(graph, input, |port, value| take(port, value, Port::Y, &mut y))?;
        y.ok_or_else(|| unexpected(Port::Y))
    }

    /// Walks the edges of a path from last to first, hands every operator the gradient of its output, and sums what comes
    /// back at nodes. `dlogits` is the gradient of the logits. An operator whose output leads nowhere gets none.
    pub(super) fn walk_back(
        &mut self,
        path: &Path,
        dlogits: SharedTensor,
        run: &mut RunBack<'_>,
    ) -> Result<(), EngineError> {
        let (mut held, mut split) = (mem::take(&mut self.spare.gradients), mem::take(&mut self.spare.split));
        held.clear();
        held.resize(self.supernet.nodes.len(), None);
        if let Some(last) = held.last_mut() {
            *last = Some(dlogits);
        }
        let edges = self.supernet.edges.len();
        for e in (0..edges).rev() {
            let edge = self.supernet.edges[e];
            let to = usize::from(edge.to);
            // Edges are sorted by where they lead.
            let first = self.supernet.edges.partition_point(|other| other.to < edge.to);
            if self.supernet.edges.get(e + 1).is_none_or(|next| next.to != edge.to) {
                self.split(to, e + 1 - first, held[to].take(), &mut split)?;
            }
            let operator = self.supernet.operator_on(&edge, path);
            let dy = split[e - first].take();
            let dx = match self.kind(e, operator) {
                Kind::Absent => None,
                Kind::PassesOn => dy,
                Kind::Runs => run(self, e, operator, dy.as_ref())?,
            };
            let from = usize::from(edge.from);
            if let (Some(dx), true) = (dx, from != 0) {
                held[from] = Some(match held[from].take() {
                    None => dx,
                    Some(present) => self.add(&present, &dx)?,
                });
            }
        }
        held.clear();
        split.clear();
        (self.spare.gradients, self.spare.split) = (held, split);
        Ok(())
    }

    /// Gradient of a node for each of its `count` incoming edges, put into `parts`.
    fn split(&mut self, node: usize, count: usize, dy: Held, parts: &mut Vec<Held>) -> Result<(), EngineError> {
        parts.clear();
        let Some(dy) = dy else {
            parts.resize(count, None);
            return Ok(());
        };
        if self.supernet.nodes[node].combine == Combine::Sum || count == 1 {
            parts.resize(count, Some(dy));
            return Ok(());
        }
        parts.resize(count, None);
        let graph = self.engine.find(Owner::Node(node as u16), Role::Split, self.options.lowering)?;
        let input = |port| match port {
            Port::Dy => Ok(Feed::Tensor(&dy)),
            other => Err(unexpected(other)),
        };
        self.engine.run(graph, input, |port, value| match port {
            Port::Part(i) if usize::from(i) < count => {
                parts[usize::from(i)] = Some(value);
                Ok(())
            }
            other => Err(unexpected(other)),
        })
    }
}
