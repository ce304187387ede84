//! Mini-batches of chosen images that are made when they are used.

use std::sync::Arc;

use super::{Batch, DataError, Dataset, Part, batch::check_size};

/// Chosen images as mini-batches, each made anew whenever it is used: between uses there are only the data set's bytes,
/// a quarter of what their numbers take.
#[derive(Clone, Debug, Default)]
pub struct BatchList {
    of: Option<(Arc<Dataset>, Part)>,
    batches: Vec<Vec<usize>>,
}

impl BatchList {
    /// The images at `indices` of `part` in this order, `size` at a time, the last mini-batch being what is left.
    ///
    /// # Errors
    /// [`DataError::Extent`] where an index is beyond the part; [`DataError::Option`] for a size of 0.
    pub fn new(data: &Arc<Dataset>, part: Part, indices: &[usize], size: usize) -> Result<Self, DataError> {
        check_size(size)?;
        let images = data.split(part).len();
        if let Some(&found) = indices.iter().find(|&&index| index >= images) {
            return Err(DataError::Extent { what: "index of an image", found, expected: format!("below {images}") });
        }
        let batches = indices.chunks(size).map(<[usize]>::to_vec).collect();
        Ok(Self { of: Some((Arc::clone(data), part)), batches })
    }

    /// The mini-batches in order.
    pub fn iter(&self) -> impl Iterator<Item = Batch> {
        let of = self.of.iter().flat_map(|(data, part)| self.batches.iter().map(move |indices| (data, *part, indices)));
        // Every index was found to be inside the part.
        of.filter_map(|(data, part, indices)| data.batch(part, indices).ok())
    }
}
