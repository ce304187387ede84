//! Passes over one batch of images, path after path, that begin where a path parts from the one before it.
//!
//! What stands on a node depends on the images and on the operators before it alone: paths with the same first
//! operators have it in common, batch statistics and what is kept for gradients included. In lexicographic order most of
//! a sample of paths need not begin at the image. Results are those of a pass of its own, bit for bit.

use nasbn_models::{Path, Supernet, manifest::MemoryMode};
use ndarray::{Array2, ArrayView4};

use super::{Network, Pass, SignAgreement, Tapes, walk::Standing};
use crate::{
    engine::{EngineError, SharedTensor},
    parameters::{BnParameters, Layout, Statistics},
};

/// What the walks along a trail leave for the next one.
#[derive(Default)]
pub(super) struct Steps {
    /// Operators of the last path, edge by edge.
    operators: Vec<u8>,
    /// Where the walk stood before edge 0, 1, ..., as far as the next path was to share them.
    pub(super) standings: Vec<Standing>,
    /// What was kept of these edges for gradients.
    pub(super) tapes: Tapes,
    /// Agreement of signs on them.
    agreements: Vec<(usize, Array2<f64>)>,
    /// Edges that the next path shares: as far as steps are left for it.
    pub(super) upto: usize,
}

impl Steps {
    /// Forgets what `path` does not share, and notes how far `next` will share `path`.
    fn turn_to(&mut self, supernet: &Supernet, path: &Path, next: Option<&Path>) {
        let operators = operators(supernet, path);
        let shared = common(&self.operators, &operators);
        self.standings.truncate(shared + 1);
        // The walk begins at the last standing: what it will pass through again is forgotten.
        let first = self.standings.len().saturating_sub(1);
        self.tapes.keep_before(first);
        self.agreements.retain(|&(edge, _)| edge < first);
        self.upto = next.map_or(0, |next| common(&operators, &self::operators(supernet, next)));
        self.operators = operators;
    }

    /// Hands on what a walk came to. One that failed leaves nothing: its steps are not complete.
    fn end<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if result.is_err() {
            *self = Self::default();
        }
        result
    }
}

/// The operators of a path, edge by edge: paths sorted by them share most with their neighbours.
pub fn operators(supernet: &Supernet, path: &Path) -> Vec<u8> {
    supernet.edges.iter().map(|edge| supernet.operator_on(edge, path)).collect()
}

/// Length of the common beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Forward passes over one batch with one set of parameters, path after path.
pub struct Trail<'a> {
    parameters: &'a BnParameters,
    images: ArrayView4<'a, f32>,
    statistics: Statistics,
    steps: Steps,
}

impl<'a> Trail<'a> {
    /// A trail over `images`, `[N, C, H, W]`.
    pub fn new(layout: &Layout, parameters: &'a BnParameters, images: ArrayView4<'a, f32>) -> Self {
        Self { parameters, images, statistics: Statistics::standard(layout), steps: Steps::default() }
    }

    /// Batch statistics of the last path.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// As [`Network::forward_for_indicators`]. `next` is the path that will come next; another one
    /// than comes costs time and nothing else.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn forward_for_indicators(
        &mut self,
        network: &mut Network,
        path: &Path,
        next: Option<&Path>,
    ) -> Result<Pass, EngineError> {
        self.forward(network, path, next, (MemoryMode::Fast, true))
    }

    fn forward(
        &mut self,
        network: &mut Network,
        path: &Path,
        next: Option<&Path>,
        keeping: (MemoryMode, bool),
    ) -> Result<Pass, EngineError> {
        self.steps.turn_to(&network.supernet, path, next);
        let Self { parameters, images, statistics, steps } = self;
        let node = network.logits_node();
        let pass = network.forward_in(node, path, parameters, *images, statistics, keeping, Some(steps));
        steps.end(pass)
    }

    /// As [`Network::sign_agreement`], of the last path's pass.
    ///
    /// # Errors
    /// As there.
    pub fn sign_agreement(&mut self, network: &mut Network, pass: &Pass) -> Result<SignAgreement, EngineError> {
        let Self { parameters, statistics, steps, .. } = self;
        let upto = steps.upto;
        network.sign_agreement_in(parameters, statistics, pass, |edge, find| {
            if let Some((_, known)) = steps.agreements.iter().find(|(of, _)| *of == edge) {
                return Ok(known.clone());
            }
            let found = find()?;
            if edge < upto {
                steps.agreements.push((edge, found.clone()));
            }
            Ok(found)
        })
    }
}

/// Inference on images under the statistics of another batch, path after path.
pub struct Transfer<'a> {
    from: Trail<'a>,
    to: Trail<'a>,
}

impl<'a> Transfer<'a> {
    /// Statistics of the batch `from` for the images `to`, both `[N, C, H, W]`.
    pub fn new(
        layout: &Layout,
        parameters: &'a BnParameters,
        from: ArrayView4<'a, f32>,
        to: ArrayView4<'a, f32>,
    ) -> Self {
        Self { from: Trail::new(layout, parameters, from), to: Trail::new(layout, parameters, to) }
    }

    /// Logits `[N, classes]`, as [`Network::evaluate`] gives them with the statistics of [`Network::forward`].
    /// `next` as for [`Trail::forward_for_indicators`].
    ///
    /// # Errors
    /// If a graph fails.
    pub fn evaluate(
        &mut self,
        network: &mut Network,
        path: &Path,
        next: Option<&Path>,
    ) -> Result<SharedTensor, EngineError> {
        self.from.forward(network, path, next, (MemoryMode::Lean, false))?;
        let Trail { parameters, images, steps, .. } = &mut self.to;
        steps.turn_to(&network.supernet, path, next);
        let logits = network.evaluate_in(path, parameters, &self.from.statistics, *images, Some(steps));
        steps.end(logits)
    }
}
