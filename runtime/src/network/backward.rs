//! Backwards through a kept pass: gradients of the loss with respect to gamma and beta.

use nasbn_models::{
    Path,
    manifest::{MemoryMode, Port, Role},
};

use super::{LossOutput, Network, Pass, Tape, copy, slot, unexpected};
use crate::{
    engine::{EngineError, Feed, SharedTensor},
    parameters::{BnParameters, Statistics},
};

impl Network {
    /// Gradients of the mean loss with respect to gamma and beta of the path's BatchNorms, written to
    /// `gradients`; other slots are left as they are.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn backward(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: Pass,
        loss: LossOutput,
        gradients: &mut BnParameters,
        path: &Path,
    ) -> Result<(), EngineError> {
        let Pass { logits, mut tapes, memory, .. } = pass;
        drop(logits);
        let mut run = |network: &mut Self, edge: usize, operator: u8, dy: Option<&SharedTensor>| {
            let tape = tapes.of(tapes.len().checked_sub(1), edge, operator)?;
            let dx = match dy {
                Some(dy) => network.backward_edge(tape, memory, dy, parameters, statistics, gradients)?,
                None => {
                    network.no_gradient(edge, operator, gradients);
                    None
                }
            };
            // What an edge kept is gone when its gradient is there.
            tapes.pop();
            Ok(dx)
        };
        self.walk_back(path, loss.dlogits, &mut run)?;
        tapes.clear();
        self.spare.tapes = tapes;
        Ok(())
    }

    /// Zeroes for the BatchNorms of an operator whose output leads nowhere.
    pub(super) fn no_gradient(&self, edge: usize, operator: u8, gradients: &mut BnParameters) {
        for slot in self.layout.operator(edge, operator) {
            let range = self.layout.slots()[slot].range.clone();
            gradients.gamma[range.clone()].fill(0.0);
            gradients.beta[range].fill(0.0);
        }
    }

    pub(super) fn backward_edge(
        &mut self,
        tape: Tape<'_>,
        memory: MemoryMode,
        dy: &SharedTensor,
        parameters: &BnParameters,
        statistics: &Statistics,
        gradients: &mut BnParameters,
    ) -> Result<Option<SharedTensor>, EngineError> {
        let mut dx = None;
        let output = |bn: Bn<'_>, port, value: SharedTensor| {
            match port {
                Port::Dx => dx = Some(value),
                Port::DGamma(i) => copy(&value, &mut gradients.gamma[bn(i)?])?,
                Port::DBeta(i) => copy(&value, &mut gradients.beta[bn(i)?])?,
                other => return Err(unexpected(other)),
            }
            Ok(())
        };
        self.run_back(Role::Backward(memory), tape, Some(dy), parameters, statistics, output)?;
        Ok(dx)
    }

    /// Runs a graph that takes what a forward pass has kept. `output` is also told where the operator's BatchNorms are.
    pub(super) fn run_back(
        &mut self,
        role: Role,
        tape: Tape<'_>,
        dy: Option<&SharedTensor>,
        parameters: &BnParameters,
        statistics: &Statistics,
        mut output: impl FnMut(Bn<'_>, Port, SharedTensor) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let graph = self.engine.find(Self::owner(tape.edge, tape.operator), role, self.options.lowering)?;
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, tape.edge, tape.operator, i);
        let input = |port| match port {
            Port::X => tape.x.map(Feed::Tensor).ok_or_else(|| unexpected(port)),
            Port::Dy => dy.map(Feed::Tensor).ok_or_else(|| unexpected(port)),
            Port::Gamma(i) => Ok(Feed::Numbers(&parameters.gamma[bn(i)?])),
            Port::Beta(i) => Ok(Feed::Numbers(&parameters.beta[bn(i)?])),
            Port::Mean(i) => Ok(Feed::Numbers(&statistics.mean[bn(i)?])),
            Port::Var(i) => Ok(Feed::Numbers(&statistics.var[bn(i)?])),
            other => {
                let kept = tape.saved.iter().find(|(port, _)| *port == other);
                kept.map(|(_, tensor)| Feed::Tensor(tensor)).ok_or_else(|| unexpected(other))
            }
        };
        self.engine.run(graph, input, |port, value| output(&bn, port, value))
    }
}

/// Channels of an operator's n-th BatchNorm in the flat vectors.
pub(super) type Bn<'a> = &'a dyn Fn(u16) -> Result<std::ops::Range<usize>, EngineError>;
