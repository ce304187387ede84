//! A kept forward pass with given statistics.

use nasbn_models::{Path, manifest::MemoryMode};
use ndarray::ArrayView4;

use super::{Network, Pass, Tapes};
use crate::{
    engine::{EngineError, SharedTensor},
    parameters::{BnParameters, Statistics},
};

impl Network {
    /// As [`Network::forward_for_indicators`], but BatchNorms use the given statistics, as [`Network::evaluate`] does:
    /// every sample then goes through alone, and [`Network::jacobian`] of this pass and these statistics is the whole
    /// derivative of its logits.
    ///
    /// No graph keeps what such a pass saves, so those for batch statistics are brought to it: where a batch has mean
    /// m and variance v and m0 and v0 are given, scale `gamma r0 / r` and shift `beta + gamma (m - m0) r0`
    /// (r = 1 / sqrt(v + epsilon)) give the output that gamma and beta give with m0 and v0. An operator runs once more
    /// than it has BatchNorms, for m and v of one are known only once those before it are right.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn forward_held(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &Statistics,
    ) -> Result<Pass, EngineError> {
        const MEMORY: MemoryMode = MemoryMode::Fast;
        let mut brought = parameters.clone();
        let mut of_batch = Statistics::standard(&self.layout);
        let mut tapes = Tapes::default();
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &SharedTensor| {
            for slot in network.layout.operator(edge, operator) {
                network.forward_edge(MEMORY, (edge, operator), x, &brought, &mut of_batch, None)?;
                for i in network.layout.slots()[slot].range.clone() {
                    let [m, v, m0, v0] = [of_batch.mean[i], of_batch.var[i], statistics.mean[i], statistics.var[i]];
                    let deviation = |v: f32| (f64::from(v) + f64::from(network.epsilon)).sqrt();
                    let scale = f64::from(parameters.gamma[i]) / deviation(v0);
                    brought.gamma[i] = (scale * deviation(v)) as f32;
                    brought.beta[i] = (f64::from(parameters.beta[i]) + scale * (f64::from(m) - f64::from(m0))) as f32;
                }
            }
            network.forward_edge(MEMORY, (edge, operator), x, &brought, &mut of_batch, Some(&mut tapes))
        };
        let logits = self.walk(self.logits_node(), path, images, self.options.lowering, None, &mut run)?;
        Ok(Pass { logits, path: path.clone(), tapes, memory: MEMORY })
    }
}
