//! NSGA-II (Deb et al. 2002) over the networks of a supernet: the score is to be large, the cost to be small, within
//! limits. Random search beside it, by the same rules.
//!
//! Networks are looked at in batches, one a generation, so that a caller can look at several at once, or keep a
//! journal: a run is a function of its options and of what it is told, so that one that is told the same again from a
//! journal takes the same way.

use nasbn_models::{Path, Supernet};
use serde::Serialize;

use super::{
    archive::{Archive, Assessed, Entry, fronts},
    breed::Breeder,
    pareto::{self, Point},
};

/// Options of a search with two objectives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Nsga2Options {
    /// Networks in a generation, and as many survive it; 2 if fewer are given.
    pub population: usize,
    /// Most networks that are evaluated, each counted once; those [passed over](Assessed::is_passed_over) are not
    /// counted, but of them and the others no more than [`LOOKS`] times as many are met.
    pub evaluations: usize,
    /// Probability that a choice of a child is drawn anew.
    pub mutation: f64,
    /// Seed.
    pub seed: u64,
}

/// Why such a search ends early.
#[derive(Debug, thiserror::Error)]
pub enum Nsga2Error<E> {
    /// An evaluation failed.
    #[error("{0}")]
    Evaluation(E),
    /// A batch was answered with the wrong number of assessments.
    #[error("{given} assessments of {asked} networks")]
    Count {
        /// Networks in the batch.
        asked: usize,
        /// Assessments that were given.
        given: usize,
    },
}

impl<E> Nsga2Error<E> {
    /// What a user can do; none where the evaluation's own error tells.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Evaluation(_) => None,
            Self::Count { .. } => {
                Some("this is a fault of the program: every network of a batch is assessed, in order")
            }
        }
    }
}

/// Networks that are met at most for one evaluation: bounds a search in which all are passed over.
pub const LOOKS: usize = 32;
/// Streams of the seed; evolution and its random search have 0 and 1.
const STREAM: u64 = 2;
const RANDOM_STREAM: u64 = 3;

/// Searches for the Pareto front within the limits.
///
/// `evaluate` gets one batch a generation, of connected canonical paths that it never got before, and gives one
/// assessment each, in order. A network over the limits need not be scored: see [`Assessed::is_passed_over`].
/// `progress` gets the number of evaluations so far and in all, after every batch. The search ends sooner where all
/// networks are known. Equal options and assessments lead to equal archives.
///
/// # Errors
/// If `evaluate` fails or gives another number of assessments than there are networks.
pub fn nsga2<E>(
    supernet: &Supernet,
    options: &Nsga2Options,
    evaluate: impl FnMut(&[Path]) -> Result<Vec<Assessed>, E>,
    progress: impl FnMut(usize, usize),
) -> Result<Archive, Nsga2Error<E>> {
    let mut breeder = Breeder::new(supernet, options.seed, STREAM);
    let mut survivors: Vec<Survivor> = Vec::new();
    let mut seen = 0;
    drive(options, evaluate, progress, |archive, wanted| {
        let entries = archive.entries();
        let candidates: Vec<usize> = survivors.iter().map(|s| s.index).chain(seen..entries.len()).collect();
        survivors = survive(entries, &candidates, options.population.max(2));
        seen = entries.len();
        if entries.is_empty() {
            let mut first = breeder.ends();
            first.truncate(wanted);
            let others = wanted - first.len();
            first.extend((0..others).map_while(|_| breeder.random()));
            return first;
        }
        let parent = |a: usize, b: usize| &entries[better(&survivors[a], &survivors[b]).index].path;
        (0..wanted).map_while(|_| breeder.child(survivors.len(), options.mutation, parent)).collect()
    })
}

/// Random search with as many evaluations, the baseline: the same batches of distinct networks, drawn uniformly from
/// the paths, of another stream of the same seed. Mutation is not used.
///
/// # Errors
/// See [`nsga2`].
pub fn random_search<E>(
    supernet: &Supernet,
    options: &Nsga2Options,
    evaluate: impl FnMut(&[Path]) -> Result<Vec<Assessed>, E>,
    progress: impl FnMut(usize, usize),
) -> Result<Archive, Nsga2Error<E>> {
    let mut breeder = Breeder::new(supernet, options.seed, RANDOM_STREAM);
    drive(options, evaluate, progress, |_, wanted| (0..wanted).map_while(|_| breeder.random()).collect())
}

/// Has batches proposed and evaluated until enough are, or nothing is proposed.
fn drive<E>(
    options: &Nsga2Options,
    mut evaluate: impl FnMut(&[Path]) -> Result<Vec<Assessed>, E>,
    mut progress: impl FnMut(usize, usize),
    mut propose: impl FnMut(&Archive, usize) -> Vec<Path>,
) -> Result<Archive, Nsga2Error<E>> {
    let mut archive = Archive::default();
    let most = options.evaluations.saturating_mul(LOOKS);
    loop {
        let left = (options.evaluations - archive.evaluations()).min(most - archive.entries().len());
        let batch = propose(&archive, left.min(options.population.max(2)));
        if batch.is_empty() {
            return Ok(archive);
        }
        let assessed = evaluate(&batch).map_err(Nsga2Error::Evaluation)?;
        if assessed.len() != batch.len() {
            return Err(Nsga2Error::Count { asked: batch.len(), given: assessed.len() });
        }
        batch.into_iter().zip(assessed).for_each(|(path, assessed)| archive.push(Entry { path, assessed }));
        progress(archive.evaluations(), options.evaluations);
    }
}

/// A member of the population.
#[derive(Clone, Copy, Debug)]
struct Survivor {
    /// Which network of the archive it is.
    index: usize,
    /// Which front it is in.
    rank: usize,
    /// Its crowding distance there.
    crowding: f64,
}

/// The winner of a tournament: of the better front, then in the emptier place, else the first.
fn better<'s>(a: &'s Survivor, b: &'s Survivor) -> &'s Survivor {
    let second = b.rank < a.rank || (b.rank == a.rank && b.crowding > a.crowding);
    if second { b } else { a }
}

/// The `size` best of the candidates: front by front, of the last one those in the emptiest places.
fn survive(entries: &[Entry], candidates: &[usize], size: usize) -> Vec<Survivor> {
    let assessed: Vec<Assessed> = candidates.iter().map(|&i| entries[i].assessed).collect();
    let mut survivors = Vec::new();
    for (rank, front) in fronts(&assessed).into_iter().enumerate() {
        if survivors.len() == size {
            break;
        }
        let points: Vec<Point> = front.iter().map(|&i| assessed[i].point()).collect();
        let crowding = pareto::crowding(&points);
        let of = |(&i, &crowding): (&usize, &f64)| Survivor { index: candidates[i], rank, crowding };
        let mut members: Vec<Survivor> = front.iter().zip(&crowding).map(of).collect();
        if members.len() > size - survivors.len() {
            members.sort_by(|a, b| b.crowding.total_cmp(&a.crowding));
            members.truncate(size - survivors.len());
        }
        survivors.extend(members);
    }
    survivors
}

#[cfg(test)]
mod tests;
