//! What is used again from pass to pass, so that one like those before it asks for no memory.

use nasbn_models::{Shape, manifest::Lowering};
use ndarray::ArrayView4;

use super::{
    Network,
    tape::Tapes,
    walk::{Held, Standing},
};
use crate::engine::{EngineError, SharedTensor};

/// Lists that are empty while no pass runs, and tensors that the next pass may want.
#[derive(Default)]
pub(super) struct Spare {
    /// Of a walk forwards.
    pub(super) standing: Standing,
    /// Parts of a concatenation.
    pub(super) whole: Vec<SharedTensor>,
    /// Gradients of nodes.
    pub(super) gradients: Vec<Held>,
    /// Gradients of the edges that lead to one node.
    pub(super) split: Vec<Held>,
    /// What edges leave for gradients.
    pub(super) tapes: Tapes,
    /// The last mini-batch's images.
    image: Option<SharedTensor>,
    /// What stands on nodes that nothing leads to.
    zeros: Vec<([usize; 4], SharedTensor)>,
}

impl Network {
    /// Images `[N, C, H, W]` as a tensor of their own, which stays alive for a whole pass.
    pub(super) fn image(&mut self, images: ArrayView4<'_, f32>) -> Result<SharedTensor, EngineError> {
        let (n, c, h, w) = images.dim();
        let fits = |image: &SharedTensor| image.dims().iter().map(|&extent| extent as usize).eq([n, c, h, w]);
        let mut last = self.spare.image.take();
        // Another pass may still hold the last one.
        let is_free = last.as_mut().is_some_and(|image| fits(image) && image.numbers_mut().is_some());
        let mut image = match last.filter(|_| is_free) {
            Some(image) => image,
            None => self.engine.zeros(&[n, c, h, w])?,
        };
        let numbers = image.numbers_mut().ok_or(EngineError::NotOnHost)?;
        match images.as_slice() {
            Some(images) => numbers.copy_from_slice(images),
            None => numbers.iter_mut().zip(images).for_each(|(to, &from)| *to = from),
        }
        self.spare.image = Some(image.clone());
        Ok(image)
    }

    /// Zeros in the place of what nothing leads to.
    pub(super) fn zeros(
        &mut self,
        batch: usize,
        shape: Shape,
        lowering: Lowering,
    ) -> Result<SharedTensor, EngineError> {
        let (c, h, w) = (shape.channels as usize, shape.height as usize, shape.width as usize);
        let dims = if lowering == Lowering::Fused { [batch, h, w, c] } else { [batch, c, h, w] };
        if let Some((_, zeros)) = self.spare.zeros.iter().find(|(of, _)| *of == dims) {
            return Ok(zeros.clone());
        }
        // Those of another batch would only take memory.
        self.spare.zeros.retain(|(of, _)| of[0] == batch);
        let zeros = self.engine.zeros(&dims)?;
        self.spare.zeros.push((dims, zeros.clone()));
        Ok(zeros)
    }
}
