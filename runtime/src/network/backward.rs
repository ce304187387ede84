//! Backwards through a kept pass: gradients of the loss with respect to gamma and beta.

use std::rc::Rc;

use nasbn_models::{
    Path,
    manifest::{MemoryMode, Port, Role},
};
use ort::{session::SessionInputValue, value::DynValue};

use super::{LossOutput, Network, Pass, Tape, copy, not_kept, slot, unexpected, view};
use crate::{
    engine::EngineError,
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
        let mut run = |network: &mut Self, edge: usize, operator: u8, dy: Option<&DynValue>| {
            // Popped, so that what an edge kept is gone when its gradient is there.
            let tape = tapes.pop().filter(|t| t.edge == edge && t.operator == operator).ok_or_else(not_kept)?;
            if let Some(dy) = dy {
                return network.backward_edge(&tape, memory, dy, parameters, statistics, gradients);
            }
            network.no_gradient(edge, operator, gradients);
            Ok(None)
        };
        self.walk_back(path, Rc::new(loss.dlogits), &mut run)
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
        tape: &Tape,
        memory: MemoryMode,
        dy: &DynValue,
        parameters: &BnParameters,
        statistics: &Statistics,
        gradients: &mut BnParameters,
    ) -> Result<Option<DynValue>, EngineError> {
        let outputs = self.run_back(Role::Backward(memory), tape, Some(dy), parameters, statistics)?;
        let bn = |i: u16| slot(&self.layout, tape.edge, tape.operator, i);
        let mut dx = None;
        for (port, value) in outputs {
            match port {
                Port::Dx => dx = Some(value),
                Port::DGamma(i) => copy(&value, &mut gradients.gamma[bn(i)?])?,
                Port::DBeta(i) => copy(&value, &mut gradients.beta[bn(i)?])?,
                other => return Err(unexpected(other)),
            }
        }
        Ok(dx)
    }

    /// Runs a graph that takes what a forward pass has kept.
    pub(super) fn run_back(
        &mut self,
        role: Role,
        tape: &Tape,
        dy: Option<&DynValue>,
        parameters: &BnParameters,
        statistics: &Statistics,
    ) -> Result<Vec<(Port, DynValue)>, EngineError> {
        let graph = self.engine.find(Self::owner(tape.edge, tape.operator), role, self.options.lowering)?;
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, tape.edge, tape.operator, i);
        self.engine.run(graph, |port| match port {
            Port::X => tape.x.as_deref().map(SessionInputValue::from).ok_or_else(|| unexpected(port)),
            Port::Dy => dy.map(SessionInputValue::from).ok_or_else(|| unexpected(port)),
            Port::Gamma(i) => view(&parameters.gamma[bn(i)?]),
            Port::Beta(i) => view(&parameters.beta[bn(i)?]),
            Port::Mean(i) => view(&statistics.mean[bn(i)?]),
            Port::Var(i) => view(&statistics.var[bn(i)?]),
            other => tape
                .saved
                .iter()
                .find(|(port, _)| *port == other)
                .map(|(_, value)| SessionInputValue::from(value))
                .ok_or_else(|| unexpected(other)),
        })
    }
}
