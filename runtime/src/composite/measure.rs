//! Measuring the parts of the composite on a reference sample of paths.
//!
//! Three numbers a path, all of the network as it is before any training (gamma and beta as exported):
//!
//! * **E**, expressivity: `ln det K` of the agreement of activation signs on one mini-batch, not divided by the number
//!   of activations ([`crate::indicators::signs`]; Mellor et al. 2021, arXiv 2006.04647, equation 3);
//! * **T**, trainability: `ln det Theta` of the tangent kernel of the summed logits on the same mini-batch, over the
//!   BatchNorms of fixed edges (stem, head), which every path has ([`crate::indicators::ntk`]);
//! * **U**, uncertainty: `ln` of the mutual information of Monte-Carlo BatchNorm: other images under the statistics of
//!   four other mini-batches ([`crate::indicators::uncertainty`]; Teye et al. 2018).

use std::collections::HashSet;

use nasbn_models::{Path, Supernet, canonical::CanonicalTable, sample};
use ndarray::{Array2, Array3, ArrayView3};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{Composite, Scale};
use crate::{
    data::{Batch, DataError, Dataset, Part},
    engine::{CHECK, EngineError},
    indicators::{
        ntk::{self, Parameters},
        signs,
        uncertainty::{logits, uncertainty},
    },
    network::{Network, Pass, SignAgreement, Trail, Transfer, operators},
    parameters::{BnParameters, Statistics},
    path_table::{FitError, MIN_PATHS, PathTable},
};

/// Names and weights of the parts, in order. Larger is better in all three.
pub const PARTS: [(&str, f64); 3] = [("sign_log_det", 2.0), ("ntk_shared_log_det", 1.0), ("mc_log_information", 1.0)];
/// Columns in which the parts' ranks stand in tables, in the same order.
pub const COLUMNS: [&str; 3] = ["fitted_expressivity", "fitted_trainability", "fitted_uncertainty"];
/// Share of the variance of paths left out ([`PartFit::explained`]) below which a table stands for little.
pub const TRUSTED: f64 = 0.5;
/// Penalty of the fit, in units of a standardised part.
const RIDGE: f64 = 1.0;
/// Paths among which ranks are taken.
const POPULATION: usize = 4096;
/// Mini-batches whose statistics U compares.
const MC_BATCHES: usize = 4;
/// Stream of random paths for a seed; sampling for other purposes uses others.
const STREAM: u64 = 0x636f_6d70;

/// How the reference sample is measured. The default is what the evidence was found with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReferenceOptions {
    /// Paths measured in each draw.
    pub paths: usize,
    /// Draws of images, each with paths of its own; their tables are averaged.
    pub draws: usize,
    /// Images in a mini-batch.
    pub batch: usize,
    /// Seed of images and paths.
    pub seed: u64,
}

impl Default for ReferenceOptions {
    fn default() -> Self {
        Self { paths: 64, draws: 3, batch: 32, seed: 0 }
    }
}

/// The images of one draw: training images, not augmented, balanced by class, all different.
pub struct ReferenceImages {
    /// For E and T.
    first: Batch,
    /// For U: what is looked at.
    images: Batch,
    /// For U: where statistics come from.
    statistics: Vec<Batch>,
}

impl ReferenceImages {
    /// The images of draw number `draw`.
    ///
    /// # Errors
    /// [`DataError::TooFewImages`] where there are fewer than six mini-batches of training images.
    pub fn new(data: &Dataset, options: &ReferenceOptions, draw: usize) -> Result<Self, DataError> {
        let seed = options.seed.wrapping_add((draw as u64) << 32);
        let mut batches = data.fixed_batches(Part::Train, options.batch, 2 + MC_BATCHES, seed)?.into_iter();
        let mut next = || {
            batches.next().ok_or(DataError::TooFewImages {
                part: Part::Train.name(),
                images: 0,
                wanted: options.batch,
                request: "the composite".into(),
            })
        };
        Ok(Self { first: next()?, images: next()?, statistics: batches.collect() })
    }
}

/// The parts of one canonical path, in the order of [`PARTS`]. What is undefined is not a number: signs or a kernel that
/// do not tell two images apart, or no information at all.
///
/// # Errors
/// If a graph fails.
pub fn parts(
    network: &mut Network,
    initial: &BnParameters,
    images: &ReferenceImages,
    path: &Path,
) -> Result<[f64; 3], EngineError> {
    let mut statistics = Statistics::standard(network.layout());
    let pass = network.forward_for_indicators(path, initial, images.first.images.view(), &mut statistics)?;
    let expressivity = expressivity(&network.sign_agreement(initial, &statistics, &pass)?);
    let trainability = trainability(network, initial, &statistics, &pass)?;
    drop(pass);
    let mut drawn = Vec::with_capacity(images.statistics.len());
    for batch in &images.statistics {
        network.forward(path, initial, batch.images.view(), &mut statistics, false)?;
        drawn.push(statistics.clone());
    }
    let logits = logits(network, path, initial, &drawn, std::slice::from_ref(&images.images))?;
    Ok([expressivity, trainability, log_information(logits.view(), &images.images.labels)])
}

/// The parts of many paths, as [`parts`] gives them one by one, to the bit and in the order of `paths`, in less time:
/// passes begin where a path parts from one that is measured before it ([`Trail`]). `progress` hears how many paths are
/// done and says whether to go on; none if it says no.
///
/// # Errors
/// If a graph fails.
pub fn parts_of_all(
    network: &mut Network,
    initial: &BnParameters,
    images: &ReferenceImages,
    paths: &[Path],
    mut progress: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<[f64; 3]>>, EngineError> {
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_cached_key(|&index| operators(network.supernet(), &paths[index]));
    let layout = network.layout().clone();
    let mut first = Trail::new(&layout, initial, images.first.images.view());
    let view = |batch| Transfer::new(&layout, initial, batch, images.images.images.view());
    let mut transfers: Vec<Transfer<'_>> = images.statistics.iter().map(|batch| view(batch.images.view())).collect();
    let classes = network.supernet().classes() as usize;
    let mut values = vec![[f64::NAN; 3]; paths.len()];
    for (done, &index) in order.iter().enumerate() {
        if !progress(done) {
            return Ok(None);
        }
        let (path, next) = (&paths[index], order.get(done + 1).map(|&next| &paths[next]));
        let pass = first.forward_for_indicators(network, path, next)?;
        let expressivity = expressivity(&first.sign_agreement(network, &pass)?);
        let trainability = trainability(network, initial, first.statistics(), &pass)?;
        drop(pass);
        let mut logits = Vec::with_capacity(transfers.len() * images.images.len() * classes);
        for transfer in &mut transfers {
            let own = transfer.evaluate(network, path, next)?;
            logits.extend(own.read()?.1.iter().map(|&z| f64::from(z)));
        }
        let logits = Array3::from_shape_vec((transfers.len(), images.images.len(), classes), logits)
            .map_err(|error| EngineError::Tensor(error.to_string()))?;
        values[index] = [expressivity, trainability, log_information(logits.view(), &images.images.labels)];
    }
    Ok(Some(values))
}

/// E of an agreement of signs.
fn expressivity(agreement: &SignAgreement) -> f64 {
    signs::unscaled_log_determinant(agreement).ok().flatten().unwrap_or(f64::NAN)
}

/// T of a pass that was kept for indicators.
fn trainability(
    network: &mut Network,
    initial: &BnParameters,
    statistics: &Statistics,
    pass: &Pass,
) -> Result<f64, EngineError> {
    let shape = pass.logits.dims();
    let samples = shape.first().map_or(0, |&n| n as usize);
    let seed = Array2::ones([samples, network.supernet().classes() as usize]);
    let jacobian = network.jacobian(initial, statistics, pass, seed.view())?;
    let mut theta = Array2::zeros([samples, samples]);
    ntk::add_gram(&mut theta, &jacobian, Parameters::Shared(network.supernet(), network.layout()));
    Ok(ntk::log_determinant(theta.view()).unwrap_or(f64::NAN))
}

/// U of logits `[T, N, classes]`.
fn log_information(logits: ArrayView3<'_, f64>, labels: &[i64]) -> f64 {
    let information = uncertainty(logits, labels).mutual_information;
    if information > 0.0 { information.ln() } else { f64::NAN }
}

/// Why there is no composite.
#[derive(Debug, thiserror::Error)]
pub enum CompositeError {
    /// A graph failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There are too few images.
    #[error("there are {images} training images, fewer than the {wanted} that a composite is measured on")]
    TooFewImages {
        /// Training images.
        images: usize,
        /// How many it takes, all different.
        wanted: usize,
    },
    /// The images cannot be used.
    #[error(transparent)]
    Data(DataError),
    /// A part is undefined on too many paths.
    #[error("{part} is undefined on {undefined} of {measured} reference paths")]
    Undefined {
        /// The part.
        part: &'static str,
        /// Paths without a value.
        undefined: usize,
        /// Paths measured.
        measured: usize,
    },
    /// No table fits.
    #[error("{part}: {source}")]
    Fit {
        /// The part.
        part: &'static str,
        /// Why.
        source: FitError,
    },
    /// The space is too small to have a reference sample.
    #[error("the space has {0} different networks; a composite needs at least {MIN_PATHS}")]
    SmallSpace(usize),
    /// It was stopped.
    #[error("stopped after {done} of {all} reference paths")]
    Stopped {
        /// Paths measured.
        done: usize,
        /// Paths to measure.
        all: usize,
    },
}

impl From<DataError> for CompositeError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::TooFewImages { images, wanted, .. } => Self::TooFewImages { images, wanted },
            other => Self::Data(other),
        }
    }
}

impl CompositeError {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Engine(_) => CHECK,
            // Mini-batches of a composite are as they are: a smaller --batch would not help.
            Self::TooFewImages { .. } => {
                "add training images (a lower --validation-fraction holds back fewer), or do without the composite"
            }
            Self::Data(error) => error.hint(),
            // Most have a value.
            Self::Undefined { undefined, measured, .. } if 2 * undefined <= *measured => {
                "raise --reference-paths: 8 of each draw must have a value"
            }
            Self::Undefined { part: "sign_log_det", .. } => {
                "images or activations are too few, or images are alike: export a larger --image-size or --width"
            }
            Self::Undefined { part: "ntk_shared_log_det", .. } => {
                "the fixed layers (stem, head) have too few channels for 32 images: export a larger --width"
            }
            Self::Undefined { .. } => "export for at least two classes, and check that images differ",
            Self::Fit { .. } | Self::SmallSpace(_) => "leave the composite out: name other --indicators",
            Self::Stopped { .. } => "run the same command again",
        }
    }
}

/// How well a part's tables stand for measuring it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PartFit {
    /// The part.
    pub indicator: &'static str,
    /// Paths that it was measured on, over all draws.
    pub paths: usize,
    /// Paths on which it was undefined.
    pub undefined: usize,
    /// [`crate::path_table::Fit::explained`], mean over draws.
    pub explained: f64,
}

/// Measures a reference sample and makes the composite of it. `progress` hears how many paths are done, and of how
/// many, and says whether to go on.
///
/// # Errors
/// See [`CompositeError`].
pub fn measure(
    network: &mut Network,
    data: &Dataset,
    initial: &BnParameters,
    options: &ReferenceOptions,
    mut progress: impl FnMut(usize, usize) -> bool,
) -> Result<(Composite, Vec<PartFit>), CompositeError> {
    let supernet = network.supernet().clone();
    let canonical = CanonicalTable::new(&supernet);
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(STREAM);
    let mut tables: Vec<Vec<PathTable>> = PARTS.iter().map(|_| Vec::new()).collect();
    let mut fits: Vec<PartFit> =
        PARTS.iter().map(|&(indicator, _)| PartFit { indicator, paths: 0, undefined: 0, explained: 0.0 }).collect();
    let mut scales: Vec<Vec<Scale>> = Vec::with_capacity(options.draws);
    let all = options.paths * options.draws;
    for draw in 0..options.draws {
        let images = ReferenceImages::new(data, options, draw)?;
        let paths = distinct(&supernet, &canonical, options.paths, &mut rng);
        if paths.len() < MIN_PATHS {
            return Err(CompositeError::SmallSpace(paths.len()));
        }
        if draw == 0 && paths.len() < options.paths {
            log::warn!(
                "the space has only {} different networks: the composite is measured on these, not on {}",
                paths.len(),
                options.paths
            );
        }
        let before = draw * options.paths;
        let mut done = before;
        let go_on = |of_draw| {
            done = before + of_draw;
            progress(done, all)
        };
        let Some(values) = parts_of_all(network, initial, &images, &paths, go_on)? else {
            return Err(CompositeError::Stopped { done, all });
        };
        let mut of_draw = Vec::with_capacity(PARTS.len());
        for (part, (tables, fit)) in tables.iter_mut().zip(&mut fits).enumerate() {
            let (table, explained, scale) = fit_part(&supernet, &paths, &values, part)?;
            of_draw.push(scale);
            fit.paths += paths.len();
            fit.undefined += values.iter().filter(|v| !v[part].is_finite()).count();
            fit.explained += explained / options.draws as f64;
            tables.push(table);
        }
        scales.push(of_draw);
    }
    progress(all, all);
    let mean = |tables: Vec<PathTable>| PathTable::mean(&tables);
    let parts = PARTS.iter().zip(tables).filter_map(|(&(name, weight), tables)| Some((name, weight, mean(tables)?)));
    let population = distinct(&supernet, &canonical, POPULATION, &mut rng);
    Ok((Composite::new(parts.collect(), &population).with_scales(scales), fits))
}

/// The table of one part, of values with mean 0 and deviation 1, so that draws count alike.
fn fit_part(
    supernet: &Supernet,
    paths: &[Path],
    values: &[[f64; 3]],
    part: usize,
) -> Result<(PathTable, f64, Scale), CompositeError> {
    let name = PARTS[part].0;
    let defined = paths.iter().zip(values).filter(|(_, v)| v[part].is_finite());
    let (paths, mut y): (Vec<Path>, Vec<f64>) = defined.map(|(path, v)| (path.clone(), v[part])).unzip();
    // Paths left out would bend the sample: a few are borne with, half of them are not.
    if paths.len() < MIN_PATHS || 2 * paths.len() < values.len() {
        let undefined = values.len() - paths.len();
        return Err(CompositeError::Undefined { part: name, undefined, measured: values.len() });
    }
    let scale = Scale::of(&y);
    y.iter_mut().for_each(|y| *y = scale.standardise(*y));
    let fit = PathTable::fit(supernet, &paths, &y, RIDGE);
    let fit = fit.map_err(|source| CompositeError::Fit { part: name, source })?;
    Ok((fit.table, fit.explained, scale))
}

/// `count` canonical paths of different networks, or as many as are found; drawn over networks, not over descriptions
/// of them: a path that is not canonical is drawn again.
fn distinct(supernet: &Supernet, canonical: &CanonicalTable, count: usize, rng: &mut ChaCha8Rng) -> Vec<Path> {
    /// Draws without a new network after which the space counts as used up.
    const PATIENCE: usize = 20_000;
    let (mut seen, mut paths, mut idle) = (HashSet::new(), Vec::new(), 0);
    while paths.len() < count && idle < PATIENCE {
        let path = sample::uniform(supernet, rng);
        if canonical.is_canonical(&path) && supernet.is_connected(&path) && seen.insert(path.clone()) {
            paths.push(path);
            idle = 0;
        } else {
            idle += 1;
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_paths_without_a_value_are_borne_with_and_the_hint_is_what_would_help() {
        let supernet = crate::testing::chain(3);
        let paths: Vec<Path> = supernet.paths().take(16).collect();
        let fitted = |measured: usize, undefined: usize| {
            let value = |i: usize| if i < undefined { f64::NAN } else { i as f64 };
            let values: Vec<[f64; 3]> = (0..measured).map(|i| [value(i), 0.0, 0.0]).collect();
            fit_part(&supernet, &paths[..measured], &values, 0).map(|_| ()).map_err(|error| error.hint())
        };
        assert_eq!((fitted(16, 0), fitted(16, 8)), (Ok(()), Ok(())));
        for (measured, undefined, words) in [
            (16, 9, "--image-size"),
            (8, 1, "--reference-paths"),
            (12, 5, "--reference-paths"),
            (12, 7, "--image-size"),
        ] {
            let found = fitted(measured, undefined);
            assert!(found.is_err_and(|hint| hint.contains(words)), "{undefined} of {measured}: {found:?}");
        }
    }
}
