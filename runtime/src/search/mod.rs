//! Search for the best path within limits: exhaustive where the space allows, else evolution, with
//! random search beside it.

pub mod archive;
mod breed;
pub mod choose;
pub mod enumerate;
pub mod evolution;
pub mod finalists;
pub mod nsga2;
pub mod pareto;
pub mod record;
mod sieve;

use std::collections::HashMap;

use nasbn_models::{
    Path, Supernet,
    canonical::CanonicalTable,
    cost::{Cost, CostTable},
    sample,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Serialize;

/// Hard limits on a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Most multiply-accumulates for one image.
    pub macs: Option<u64>,
    /// Most parameters.
    pub params: Option<u64>,
    /// Most peak activation memory for one image, bytes.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Largest relative excess over a limit: 0 for a network within all of them.
    pub fn excess(&self, cost: &Cost) -> f64 {
        let over = |value: u64, limit: Option<u64>| match limit {
            Some(limit) if value > limit => (value - limit) as f64 / limit.max(1) as f64,
            _ => 0.0,
        };
        over(cost.macs, self.macs)
            .max(over(cost.params, self.params))
            .max(over(cost.peak_activation_bytes, self.memory_bytes))
    }
}

/// A network that was evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Canonical path.
    pub path: Path,
    /// Objective, larger is better.
    pub score: f64,
    /// Costs.
    pub cost: Cost,
}

/// How the search went about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Every network within the limits was evaluated.
    Exhaustive,
    /// Every network of a given list that is within the limits was.
    List,
    /// Evolution over canonical paths.
    Evolution,
}

impl Method {
    /// What a search within a latency budget looked at, or how, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Exhaustive => "every network of the space",
            Self::List => "every network of --paths",
            Self::Evolution => "NSGA-II",
        }
    }
}

/// Which part of a search met the best network first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// The look at every network, of the space or of a list.
    Exhaustive,
    /// Evolution.
    Evolution,
    /// Random search, the baseline.
    RandomSearch,
}

/// Options of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchOptions {
    /// Limits.
    pub limits: Limits,
    /// Most networks that are evaluated (each counted once), by the search and again by random search.
    pub evaluations: usize,
    /// Seed.
    pub seed: u64,
    /// Networks that survive and breed.
    pub parents: usize,
    /// Networks in a generation.
    pub population: usize,
    /// Probability that a choice mutates.
    pub mutation: f64,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How.
    pub method: Method,
    /// The best network of all that were evaluated, by the search or by random search.
    pub best: Candidate,
    /// Which of them met it.
    pub found_by: FoundBy,
    /// The best of evolution; none after an exhaustive search, or if no score was a number.
    pub evolution_best: Option<Candidate>,
    /// Every network that the search itself evaluated, in order.
    pub evaluated: Vec<Candidate>,
    /// The best of random search with as many evaluations; none after an exhaustive search, which leaves nothing
    /// to compare with, or if no score was a number.
    pub random_best: Option<Candidate>,
    /// Every network that random search evaluated.
    pub random: Vec<Candidate>,
}

/// Why a search ends without a network.
#[derive(Debug)]
pub enum SearchError<E> {
    /// No network of the space is within the limits, as far as was found.
    Infeasible {
        /// The network nearest to the limits.
        nearest: Path,
        /// Its costs.
        cost: Cost,
        /// Its largest relative excess.
        excess: f64,
    },
    /// Networks were evaluated, and not one score is a number.
    NoScore {
        /// How many were.
        evaluated: usize,
    },
    /// An evaluation failed.
    Evaluation(E),
}

/// Paths up to this count are enumerated.
pub const ENUMERABLE: u128 = 1 << 20;
/// Draws from a list, and steps towards the limits from one draw, that are tried for one new network.
const TRIES: usize = 2000;
/// Draws and steps in all that are tried for one new network where the space is too large to list: bounds the time
/// that an impossible limit takes.
const WORK: usize = 20_000;

/// Shared state of the searches: what is feasible, and what is known.
pub(crate) struct Pool<'a> {
    pub supernet: &'a Supernet,
    pub costs: &'a CostTable,
    pub limits: Limits,
    pub rng: ChaCha8Rng,
    /// Networks within the limits, if the space is small enough to list them.
    pub feasible: Option<Vec<Path>>,
    canonical: CanonicalTable,
    nearest: Option<(f64, Path, Cost)>,
}

impl<'a> Pool<'a> {
    fn new(supernet: &'a Supernet, costs: &'a CostTable, limits: Limits, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let canonical = CanonicalTable::new(supernet);
        let mut pool = Self { supernet, costs, limits, rng, feasible: None, canonical, nearest: None };
        if supernet.path_count() <= ENUMERABLE {
            let mut feasible = Vec::new();
            for path in supernet.paths() {
                if pool.canonical.is_canonical(&path) && pool.admits(&path) {
                    feasible.push(path);
                }
            }
            pool.feasible = Some(feasible);
        }
        pool
    }

    /// The canonical path of `path`.
    pub fn canonical(&self, path: &Path) -> Path {
        self.canonical.of(path)
    }

    /// Whether a canonical path is connected and within the limits; remembers the nearest miss.
    pub fn admits(&mut self, path: &Path) -> bool {
        if !self.supernet.is_connected(path) {
            return false;
        }
        let cost = self.costs.cost(path);
        let excess = self.limits.excess(&cost);
        if excess > 0.0 && self.nearest.as_ref().is_none_or(|(least, ..)| excess < *least) {
            self.nearest = Some((excess, path.clone(), cost));
        }
        excess == 0.0
    }

    /// A random network within the limits that is not in `known`; none if none was met.
    pub fn random<T>(&mut self, known: &HashMap<Path, T>) -> Option<Path> {
        if let Some(feasible) = &self.feasible {
            if known.len() >= feasible.len() || feasible.is_empty() {
                return None;
            }
            for _ in 0..TRIES {
                let path = &feasible[sample::below(&mut self.rng, feasible.len() as u32) as usize];
                if !known.contains_key(path) {
                    return Some(path.clone());
                }
            }
            // Nearly all are known: take the first that is not.
            return feasible.iter().find(|p| !known.contains_key(*p)).cloned();
        }
        let mut work = WORK;
        while work > 0 {
            work -= 1;
            let path = sample::uniform(self.supernet, &mut self.rng);
            let path = self.shrink(&path, &mut work);
            if let Some(path) = path.filter(|p| !known.contains_key(p)) {
                return Some(path);
            }
        }
        None
    }

    /// Replaces random choices by random candidates that bring the path nearer to the limits, until it
    /// is within them; none if that gets stuck or `work`, of which every step takes one, is used up.
    fn shrink(&mut self, path: &Path, work: &mut usize) -> Option<Path> {
        let mut path = self.canonical(path);
        let excess = |pool: &Self, path: &Path| pool.limits.excess(&pool.costs.cost(path));
        let mut least = excess(self, &path);
        for _ in 0..TRIES {
            if self.admits(&path) {
                return Some(path);
            }
            *work = work.checked_sub(1)?;
            let mut nearer = path.clone();
            let choice = sample::below(&mut self.rng, self.supernet.choices.len().max(1) as u32) as usize;
            let count = self.supernet.choices.get(choice)?.candidates.len() as u32;
            nearer.choices_mut()[choice] = sample::below(&mut self.rng, count) as u8;
            let nearer = self.canonical(&nearer);
            let over = excess(self, &nearer);
            if over <= least {
                (path, least) = (nearer, over);
            }
        }
        None
    }
}

/// Searches for the network of the highest `evaluate` within the limits.
///
/// `evaluate` gets canonical paths, each once per search; `progress` the number of evaluations done and
/// in all.
///
/// # Errors
/// If no network is within the limits, no score is a number, or `evaluate` fails.
pub fn search<E>(
    supernet: &Supernet,
    costs: &CostTable,
    options: &SearchOptions,
    mut evaluate: impl FnMut(&Path) -> Result<f64, E>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Outcome, SearchError<E>> {
    let mut pool = Pool::new(supernet, costs, options.limits, options.seed);
    let mut known: HashMap<Path, f64> = HashMap::new();
    let all = pool.feasible.clone().filter(|f| f.len() <= options.evaluations);
    let total = all.as_ref().map_or(2 * options.evaluations, Vec::len);
    let mut done = 0;
    let mut evaluate = |path: &Path| -> Result<Candidate, SearchError<E>> {
        let score = match known.get(path) {
            Some(&score) => score,
            None => {
                let score = evaluate(path).map_err(SearchError::Evaluation)?;
                known.insert(path.clone(), score);
                score
            }
        };
        done += 1;
        progress(done, total);
        Ok(Candidate { path: path.clone(), score, cost: costs.cost(path) })
    };
    let (method, evaluated) = match all {
        Some(feasible) => (Method::Exhaustive, feasible.iter().map(&mut evaluate).collect::<Result<Vec<_>, _>>()?),
        None => (Method::Evolution, evolution::evolve(&mut pool, options, &mut evaluate)?),
    };
    if evaluated.is_empty() {
        let (excess, nearest, cost) = pool.nearest.unwrap_or_default();
        return Err(SearchError::Infeasible { nearest, cost, excess });
    }
    let no_score = |evaluated| SearchError::NoScore { evaluated };
    if method == Method::Exhaustive {
        let best = best_of(&evaluated).ok_or_else(|| no_score(evaluated.len()))?;
        let (evolution_best, random_best, random) = (None, None, Vec::new());
        return Ok(Outcome {
            method,
            best,
            found_by: FoundBy::Exhaustive,
            evolution_best,
            evaluated,
            random_best,
            random,
        });
    }
    // Random search draws from a stream of its own, so that it does not depend on the other search.
    pool.rng = ChaCha8Rng::seed_from_u64(options.seed);
    pool.rng.set_stream(1);
    let mut seen: HashMap<Path, ()> = HashMap::new();
    let mut random = Vec::new();
    while random.len() < options.evaluations {
        let Some(path) = pool.random(&seen) else { break };
        seen.insert(path.clone(), ());
        random.push(evaluate(&path)?);
    }
    let (evolution_best, random_best) = (best_of(&evaluated), best_of(&random));
    // Of equal ones evolution's: random search is the baseline.
    let (best, found_by) = match (&evolution_best, &random_best) {
        (Some(evolved), Some(drawn)) if drawn.score > evolved.score => (drawn, FoundBy::RandomSearch),
        (Some(evolved), _) => (evolved, FoundBy::Evolution),
        (None, Some(drawn)) => (drawn, FoundBy::RandomSearch),
        (None, None) => return Err(no_score(known.len())),
    };
    Ok(Outcome { method, best: best.clone(), found_by, evolution_best, evaluated, random_best, random })
}

/// The highest score; of equal ones the cheapest, then the first path. Scores that are not numbers are none.
pub fn best_of(candidates: &[Candidate]) -> Option<Candidate> {
    candidates
        .iter()
        .filter(|candidate| !candidate.score.is_nan())
        .max_by(|a, b| {
            let by_score = a.score.total_cmp(&b.score);
            by_score.then_with(|| b.cost.macs.cmp(&a.cost.macs)).then_with(|| b.path.cmp(&a.path))
        })
        .cloned()
}

#[cfg(test)]
mod tests;
