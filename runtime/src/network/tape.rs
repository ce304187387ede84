//! What edges leave for graphs that go back through them.

use nasbn_models::manifest::Port;

use crate::engine::{EngineError, SharedTensor};

/// What the edges of a pass have left, in their order.
#[derive(Clone, Default)]
pub(super) struct Tapes {
    edges: Vec<Edge>,
    /// What their forward graphs keep for others, one edge's after another's.
    saved: Vec<(Port, SharedTensor)>,
}

/// An edge that was run.
#[derive(Clone)]
struct Edge {
    edge: usize,
    operator: u8,
    x: Option<SharedTensor>,
    /// Where its tensors begin in [`Tapes::saved`].
    begin: usize,
}

/// What one edge has left.
#[derive(Clone, Copy)]
pub(super) struct Tape<'a> {
    /// The edge.
    pub(super) edge: usize,
    /// Its operator.
    pub(super) operator: u8,
    /// The operator's input, where graphs that go back take it.
    pub(super) x: Option<&'a SharedTensor>,
    /// What its forward graph keeps.
    pub(super) saved: &'a [(Port, SharedTensor)],
}

impl Tapes {
    /// Begins what the next edge leaves.
    pub(super) fn begin(&mut self, edge: usize, operator: u8, x: Option<SharedTensor>) {
        self.edges.push(Edge { edge, operator, x, begin: self.saved.len() });
    }

    /// Keeps a tensor of the edge that was begun last.
    pub(super) fn save(&mut self, port: Port, tensor: SharedTensor) {
        self.saved.push((port, tensor));
    }

    /// Number of edges.
    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    /// What the edge number `index` of those that were run has left.
    pub(super) fn get(&self, index: usize) -> Option<Tape<'_>> {
        let Edge { edge, operator, x, begin } = self.edges.get(index)?;
        let end = self.edges.get(index + 1).map_or(self.saved.len(), |next| next.begin);
        Some(Tape { edge: *edge, operator: *operator, x: x.as_ref(), saved: self.saved.get(*begin..end)? })
    }

    /// What the edge has left, which must be number `index`.
    ///
    /// # Errors
    /// If it is another, or was not kept.
    pub(super) fn of(&self, index: Option<usize>, edge: usize, operator: u8) -> Result<Tape<'_>, EngineError> {
        let tape = index.and_then(|index| self.get(index)).filter(|t| t.edge == edge && t.operator == operator);
        tape.ok_or_else(not_kept)
    }

    /// Drops what the last edge has left.
    pub(super) fn pop(&mut self) {
        if let Some(Edge { begin, .. }) = self.edges.pop() {
            self.saved.truncate(begin);
        }
    }

    /// Drops what edges from `edge` on have left.
    pub(super) fn keep_before(&mut self, edge: usize) {
        while self.edges.last().is_some_and(|last| last.edge >= edge) {
            self.pop();
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.edges.clear();
        self.saved.clear();
    }

    /// Takes what the edges before `edge` have left in another pass, in place of its own.
    pub(super) fn take_before(&mut self, edge: usize, from: &Self) {
        self.clear();
        let end = from.edges.partition_point(|run| run.edge < edge);
        let saved = from.edges.get(end).map_or(from.saved.len(), |next| next.begin);
        self.edges.extend_from_slice(&from.edges[..end]);
        self.saved.extend_from_slice(&from.saved[..saved]);
    }
}

fn not_kept() -> EngineError {
    EngineError::Tensor("the pass was not kept for its gradients".into())
}
