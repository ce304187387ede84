//! What indicators need of a kept pass: the Jacobian sample by sample, and the agreement of activation signs.

use nasbn_models::{
    Program,
    manifest::{MemoryMode, Port, Role},
};
use ndarray::{Array2, ArrayView2};

use super::{Network, Pass, Tape, unexpected};
use crate::{
    engine::{EngineError, SharedTensor},
    parameters::{BnParameters, Statistics},
};

/// The Jacobian of one BatchNorm's parameters: a row a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotJacobian {
    /// Index of the BatchNorm in [`crate::parameters::Layout::slots`].
    pub slot: usize,
    /// With respect to gamma, `[N, C]`.
    pub gamma: Array2<f32>,
    /// With respect to beta, `[N, C]`.
    pub beta: Array2<f32>,
}

/// The Jacobian of one number per sample with respect to gamma and beta of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Jacobian {
    /// Number of samples N.
    pub samples: usize,
    /// The path's BatchNorms, in order of execution.
    pub slots: Vec<SlotJacobian>,
}

/// In how many activations after BatchNorm, of those that a ReLU looks at, two samples have the same sign.
#[derive(Clone, Debug, PartialEq)]
pub struct SignAgreement {
    /// `[N, N]`, whole numbers: `activations` less the Hamming distance of two samples' codes (Mellor et al. 2021,
    /// arXiv 2006.04647, equation 2). The diagonal is `activations`.
    pub kernel: Array2<f64>,
    /// E: those activations of one sample, after the path's BatchNorms ([`Program::rectified`]).
    pub activations: u64,
}

impl Network {
    /// The Jacobian of `sum_k seed[n,k] logits[n,k]` of every sample n with respect to gamma and beta of the path's
    /// BatchNorms, from one batched pass. `statistics` are constants here, which is what makes samples independent of
    /// each other; they are those that the forward pass wrote. `seed` is `[N, classes]`: all ones give the sum of
    /// the logits, a column of ones one class. The pass can be used again with another seed.
    ///
    /// # Errors
    /// If the pass is not one of [`Network::forward_for_indicators`], if `seed` has another shape than the logits, or if
    /// a graph fails.
    pub fn jacobian(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: &Pass,
        seed: ArrayView2<'_, f32>,
    ) -> Result<Jacobian, EngineError> {
        pass.is_for_indicators()?;
        let samples = seed.nrows();
        let seed = self.seed(pass, seed)?;
        let mut left = pass.tapes.len();
        let mut slots = Vec::new();
        let mut run = |network: &mut Self, edge: usize, operator: u8, dy: Option<&SharedTensor>| {
            let tape = pass.tapes.of(left.checked_sub(1), edge, operator)?;
            left -= 1;
            match dy {
                Some(dy) => network.jacobian_edge(tape, samples, dy, parameters, statistics, &mut slots),
                None => {
                    slots.extend(network.no_jacobian(tape, samples));
                    Ok(None)
                }
            }
        };
        self.walk_back(&pass.path, seed, &mut run)?;
        // Slots are numbered in order of execution.
        slots.sort_unstable_by_key(|slot| slot.slot);
        Ok(Jacobian { samples, slots })
    }

    /// The gradient of `sum seed logits` with respect to gamma and beta of the path's BatchNorms, through the statistics of
    /// the batch, written to `gradients`; other slots are left as they are. `seed` is `[N, classes]`. As
    /// [`Network::backward`], but for any seed, and the pass can be used again.
    ///
    /// # Errors
    /// If the pass was not kept, if `seed` has another shape than the logits, or if a graph fails.
    pub fn gradient(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: &Pass,
        seed: ArrayView2<'_, f32>,
        gradients: &mut BnParameters,
    ) -> Result<(), EngineError> {
        let seed = self.seed(pass, seed)?;
        let mut left = pass.tapes.len();
        let mut run = |network: &mut Self, edge: usize, operator: u8, dy: Option<&SharedTensor>| {
            let tape = pass.tapes.of(left.checked_sub(1), edge, operator)?;
            left -= 1;
            match dy {
                Some(dy) => network.backward_edge(tape, pass.memory, dy, parameters, statistics, gradients),
                None => {
                    network.no_gradient(edge, operator, gradients);
                    Ok(None)
                }
            }
        };
        self.walk_back(&pass.path, seed, &mut run)
    }

    fn jacobian_edge(
        &mut self,
        tape: Tape<'_>,
        samples: usize,
        dy: &SharedTensor,
        parameters: &BnParameters,
        statistics: &Statistics,
        slots: &mut Vec<SlotJacobian>,
    ) -> Result<Option<SharedTensor>, EngineError> {
        let mut own: Vec<SlotJacobian> = self.no_jacobian(tape, samples).collect();
        let mut dx = None;
        self.run_back(Role::Jacobian, tape, Some(dy), parameters, statistics, |_, port, value| {
            let to = match port {
                Port::Dx => {
                    dx = Some(value);
                    return Ok(());
                }
                Port::SampleDGamma(i) => own.get_mut(usize::from(i)).map(|slot| &mut slot.gamma),
                Port::SampleDBeta(i) => own.get_mut(usize::from(i)).map(|slot| &mut slot.beta),
                _ => None,
            };
            assign(&value, to.ok_or_else(|| unexpected(port))?)
        })?;
        slots.append(&mut own);
        Ok(dx)
    }

    /// Zeroes for every BatchNorm of an operator.
    fn no_jacobian(&self, tape: Tape<'_>, samples: usize) -> impl Iterator<Item = SlotJacobian> {
        self.layout.operator(tape.edge, tape.operator).map(move |slot| {
            let zeros = Array2::zeros([samples, self.layout.slots()[slot].range.len()]);
            SlotJacobian { slot, gamma: zeros.clone(), beta: zeros }
        })
    }

    /// In how many activations (y > 0, or not) after the path's BatchNorms that a ReLU looks at every two samples of a
    /// pass agree.
    ///
    /// # Errors
    /// If the pass is not one of [`Network::forward_for_indicators`], if a parameter or statistic is not finite (the sign
    /// of NaN would pass for a negative one), or if a graph fails.
    pub fn sign_agreement(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: &Pass,
    ) -> Result<SignAgreement, EngineError> {
        self.sign_agreement_in(parameters, statistics, pass, |_, find| find())
    }

    /// As [`Network::sign_agreement`]. `of_edge` gives the agreement on an edge: what its second argument finds.
    pub(super) fn sign_agreement_in(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: &Pass,
        mut of_edge: impl FnMut(
            usize,
            &mut dyn FnMut() -> Result<Array2<f64>, EngineError>,
        ) -> Result<Array2<f64>, EngineError>,
    ) -> Result<SignAgreement, EngineError> {
        pass.is_for_indicators()?;
        self.check_finite(pass, parameters, statistics)?;
        let samples = pass.logits.dims().first().map_or(0, |&n| n as usize);
        let mut kernel = Array2::<f64>::zeros([samples, samples]);
        let mut activations = 0;
        for tape in (0..pass.tapes.len()).filter_map(|index| pass.tapes.get(index)) {
            let own = self.relu_units(tape);
            if own == 0 {
                continue;
            }
            activations += own;
            kernel += &of_edge(tape.edge, &mut || self.edge_agreement(tape, samples, parameters, statistics))?;
        }
        Ok(SignAgreement { kernel, activations })
    }

    /// What one edge adds to [`SignAgreement::kernel`].
    fn edge_agreement(
        &mut self,
        tape: Tape<'_>,
        samples: usize,
        parameters: &BnParameters,
        statistics: &Statistics,
    ) -> Result<Array2<f64>, EngineError> {
        let mut kernel = Array2::<f64>::zeros([samples, samples]);
        self.run_back(Role::Signs, tape, None, parameters, statistics, |_, port, value| {
            if port != Port::Agreement {
                return Err(unexpected(port));
            }
            let mut agreement = Array2::zeros([samples, samples]);
            assign(&value, &mut agreement)?;
            kernel += &agreement.mapv(f64::from);
            Ok(())
        })?;
        Ok(kernel)
    }

    fn check_finite(&self, pass: &Pass, parameters: &BnParameters, statistics: &Statistics) -> Result<(), EngineError> {
        for slot in self.layout.path(&self.supernet, &pass.path) {
            let range = self.layout.slots()[slot].range.clone();
            let parts = [
                ("gamma", &parameters.gamma),
                ("beta", &parameters.beta),
                ("the mean", &statistics.mean),
                ("the variance", &statistics.var),
            ];
            if let Some((what, _)) =
                parts.into_iter().find(|(_, all)| all[range.clone()].iter().any(|v| !v.is_finite()))
            {
                return Err(EngineError::NotFinite { what, name: self.layout.name(slot).to_owned() });
            }
        }
        Ok(())
    }

    /// A seed for the logits of a pass as a tensor.
    fn seed(&self, pass: &Pass, seed: ArrayView2<'_, f32>) -> Result<SharedTensor, EngineError> {
        let found = pass.logits.dims();
        if !found.iter().map(|&extent| extent as usize).eq(seed.shape().iter().copied()) {
            let problem = format!("a seed of shape {:?} does not fit logits of shape {found:?}", seed.shape());
            return Err(EngineError::Tensor(problem));
        }
        let mut tensor = self.engine.zeros(seed.shape())?;
        let numbers = tensor.numbers_mut().ok_or(EngineError::NotOnHost)?;
        numbers.iter_mut().zip(seed).for_each(|(to, &from)| *to = from);
        Ok(tensor)
    }

    /// Activations of one sample after the BatchNorms of an operator whose signs a ReLU looks at.
    fn relu_units(&self, tape: Tape<'_>) -> u64 {
        self.programs.get(&(tape.edge, tape.operator)).map_or(0, Program::relu_units)
    }
}

impl Pass {
    fn is_for_indicators(&self) -> Result<(), EngineError> {
        match self.memory {
            MemoryMode::Fast => Ok(()),
            MemoryMode::Lean => Err(EngineError::Tensor("the pass was not kept for indicators".into())),
        }
    }
}

/// Copies a tensor of the same shape.
fn assign(value: &SharedTensor, to: &mut Array2<f32>) -> Result<(), EngineError> {
    let (shape, from) = value.read()?;
    let expected: Vec<i64> = to.shape().iter().map(|&d| d as i64).collect();
    if shape != expected {
        let problem = format!("a graph gave a tensor of shape {:?} where {expected:?} was due", shape);
        return Err(EngineError::Tensor(problem));
    }
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    Ok(())
}
