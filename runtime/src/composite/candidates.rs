//! The composite of paths that are measured themselves: dearer than the tables', for a few that are to be decided between.

use nasbn_models::Path;
use ndarray::Array2;

use super::{
    Composite, PARTS,
    measure::{CompositeError, ReferenceImages, ReferenceOptions, parts_of_all},
};
use crate::{data::Dataset, network::Network, parameters::BnParameters};

/// Scores of canonical paths, larger is better, on the scale of [`Composite::score`]: every part is measured on the path in every draw
/// of images that the reference sample was measured on, standardised as there, averaged over the draws, and ranked among
/// the population. Not a number for a path on which a part is undefined in every draw.
///
/// `progress` hears how many measurements are done, and of how many, and says whether to go on.
///
/// # Errors
/// See [`CompositeError`]; `options` must be those of the reference sample.
pub fn score_candidates(
    network: &mut Network,
    data: &Dataset,
    initial: &BnParameters,
    options: &ReferenceOptions,
    composite: &Composite,
    paths: &[Path],
    mut progress: impl FnMut(usize, usize) -> bool,
) -> Result<Vec<f64>, CompositeError> {
    let all = composite.scales().len() * paths.len();
    // Sums over draws of standardised parts, and in how many draws a part was defined.
    let mut sums = Array2::<f64>::zeros([paths.len(), PARTS.len()]);
    let mut counts = Array2::<u32>::zeros([paths.len(), PARTS.len()]);
    for (draw, scales) in composite.scales().iter().enumerate() {
        let images = ReferenceImages::new(data, options, draw)?;
        let before = draw * paths.len();
        let mut done = before;
        let go_on = |of_draw| {
            done = before + of_draw;
            progress(done, all)
        };
        let Some(values) = parts_of_all(network, initial, &images, paths, go_on)? else {
            return Err(CompositeError::Stopped { done, all });
        };
        for (path, values) in values.iter().enumerate() {
            for (part, (value, scale)) in values.iter().zip(scales).enumerate() {
                let standardised = scale.standardise(*value);
                if standardised.is_finite() {
                    sums[[path, part]] += standardised;
                    counts[[path, part]] += 1;
                }
            }
        }
    }
    progress(all, all);
    let mean = |path: usize, part: usize| sums[[path, part]] / f64::from(counts[[path, part]]);
    let score = |path| composite.score_of_values(&(0..PARTS.len()).map(|part| mean(path, part)).collect::<Vec<_>>());
    Ok((0..paths.len()).map(score).collect())
}
