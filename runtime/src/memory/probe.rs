//! What work takes on this machine, found by doing a little of it.

use nasbn_models::Path;
use ndarray::Array4;

use super::{Linear, resident};
use crate::{
    engine::{CHECK, EngineError},
    network::Network,
    ort_library,
    parameters::{BnParameters, Statistics},
};

/// Images of the two mini-batches that are tried: the least that have statistics, and twice as many.
pub const PROBE_IMAGES: [u32; 2] = [2, 4];

/// Why memory cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The work itself failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The kernel does not tell what the process takes.
    #[error("/proc/self/status does not tell how much memory this process takes")]
    NotTold,
    /// There is no arena.
    #[error("activations have no memory of their own that could be measured (no address range was free)")]
    NoArena,
}

impl ProbeError {
    /// What can be done.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Engine(_) => CHECK,
            Self::NotTold => "mount /proc, or do without a memory budget",
            Self::NoArena => "raise the limit on the address space (ulimit -v), or do without a memory budget",
        }
    }
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes that the process took without its sessions and activations.
    pub resident: u64,
    /// Sessions that it opened.
    pub sessions: usize,
    /// Bytes that these take between passes: weights, and what ONNX Runtime makes of them.
    pub session_bytes: u64,
    /// Bytes of activations by the images of a mini-batch, at most.
    pub activations: Linear,
}

/// Bytes that the process takes without activations: what is resident, less the pages of the arena that these have
/// touched. To be looked at between passes.
///
/// # Errors
/// If memory cannot be measured.
pub fn standing() -> Result<u64, ProbeError> {
    let arena = ort_library::arena_usage().ok_or(ProbeError::NoArena)?;
    let resident = resident().ok_or(ProbeError::NotTold)?.now;
    Ok(resident.saturating_sub(arena.passing as u64).saturating_add(arena.passing_in_use as u64))
}

/// Does `work`, which is handed a number of images, and finds what it takes. What the first work of all takes for good
/// (ONNX Runtime's own, pages of its code) should be behind it.
///
/// Activations are what they take of the arena at most; sessions are what the process has grown by
/// ([`standing`]).
///
/// # Errors
/// If the work fails, or memory cannot be measured.
pub fn measure<E: From<ProbeError>>(
    network: &mut Network,
    mut work: impl FnMut(&mut Network, u32) -> Result<(), E>,
) -> Result<Measured, E> {
    let [few, many] = PROBE_IMAGES;
    ort_library::trim_arena();
    let (before, opened) = (standing()?, network.sessions());
    // The first pass opens sessions in between.
    work(network, few)?;
    let session_bytes = standing()?.saturating_sub(before);
    let sessions = network.sessions().saturating_sub(opened);
    let arena = || ort_library::arena_usage().ok_or(ProbeError::NoArena);
    let mut at = |images| -> Result<(u32, u64), E> {
        let standing = arena()?.passing_in_use;
        ort_library::mark_arena();
        work(network, images)?;
        Ok((images, arena()?.since_mark.saturating_sub(standing) as u64))
    };
    let activations = Linear::through(at(few)?, at(many)?);
    Ok(Measured { resident: before, sessions, session_bytes, activations })
}

/// One step of training on a path as [`measure`] takes it, without a change of parameters.
///
/// # Errors
/// If a graph fails.
pub fn training(network: &mut Network, path: &Path, parameters: &BnParameters, images: u32) -> Result<(), EngineError> {
    let image = network.supernet().image();
    let shape = (images as usize, image.channels as usize, image.height as usize, image.width as usize);
    let batch = Array4::zeros(shape);
    let mut statistics = Statistics::standard(network.layout());
    let mut gradients = BnParameters::zeros(network.layout());
    let pass = network.forward(path, parameters, batch.view(), &mut statistics, true)?;
    let loss = network.loss(&pass.logits, &vec![0; images as usize])?;
    network.backward(parameters, &statistics, pass, loss, &mut gradients, path)
}
