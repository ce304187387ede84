//! Evolution over canonical paths (SPOS, Guo et al. 2020, algorithm 1): the best networks so far
//! breed by mutation and crossover; every child is new and within the limits.

use std::collections::HashMap;

use nasbn_models::{Path, sample};

use super::{Candidate, Pool, SearchError, SearchOptions};

/// Children that are tried for one that is new and within the limits.
const TRIES: usize = 200;

/// Evaluates at most `options.evaluations` networks, generation by generation.
pub(crate) fn evolve<E>(
    pool: &mut Pool<'_>,
    options: &SearchOptions,
    evaluate: &mut impl FnMut(&Path) -> Result<Candidate, SearchError<E>>,
) -> Result<Vec<Candidate>, SearchError<E>> {
    let mut known: HashMap<Path, ()> = HashMap::new();
    let mut evaluated: Vec<Candidate> = Vec::new();
    let mut parents: Vec<Candidate> = Vec::new();
    while evaluated.len() < options.evaluations {
        let size = options.population.min(options.evaluations - evaluated.len());
        let mut generation = Vec::with_capacity(size);
        while generation.len() < size {
            let bred = if parents.len() < 2 { None } else { child(pool, options, &parents, generation.len(), &known) };
            let Some(path) = bred.or_else(|| pool.random(&known)) else { break };
            known.insert(path.clone(), ());
            generation.push(evaluate(&path)?);
        }
        if generation.is_empty() {
            break;
        }
        evaluated.extend(generation.iter().cloned());
        parents.extend(generation);
        parents.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.path.cmp(&b.path)));
        parents.retain(|p| !p.score.is_nan());
        parents.truncate(options.parents);
    }
    Ok(evaluated)
}

/// A new network within the limits from two parents: mutation and crossover in turn.
fn child(
    pool: &mut Pool<'_>,
    options: &SearchOptions,
    parents: &[Candidate],
    turn: usize,
    known: &HashMap<Path, ()>,
) -> Option<Path> {
    for _ in 0..TRIES {
        let count = parents.len() as u32;
        let first = &parents[sample::below(&mut pool.rng, count) as usize].path;
        let path = if turn.is_multiple_of(2) {
            sample::mutate(pool.supernet, first, options.mutation, &mut pool.rng)
        } else {
            let second = &parents[sample::below(&mut pool.rng, count) as usize].path;
            sample::crossover(first, second, &mut pool.rng)
        };
        let path = pool.canonical(&path);
        if !known.contains_key(&path) && pool.admits(&path) {
            return Some(path);
        }
    }
    None
}
