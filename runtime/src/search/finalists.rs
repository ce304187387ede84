//! A search in two steps: what is cheap filters, what is dear decides.
//!
//! NSGA-II (or, in a small space, a look at every network) finds the front of a cheap score and of the predicted latency
//! within the limits. A few networks of it are the finalists: their dear score and their latency are measured, and the
//! winner is the best of those that keep the limit *as measured*. Random search gets as many dear evaluations.

use nasbn_models::{Path, Supernet};
use serde::Serialize;

use super::{
    FoundBy, Method,
    archive::{Archive, Assessed, Entry},
    choose::choose,
    enumerate,
    nsga2::{self, Nsga2Error, Nsga2Options},
    pareto::number_order,
};

/// How such a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Most latency of a network, milliseconds.
    pub budget_ms: f64,
    /// Most networks that the cheap step looks at.
    pub evaluations: usize,
    /// Networks in a generation.
    pub population: usize,
    /// Probability that a choice mutates.
    pub mutation: f64,
    /// Networks whose dear score and latency are measured, and as many for random search.
    pub finalists: usize,
    /// Times that finalists are replaced by as many others, if not one keeps the limit as measured.
    pub replacements: usize,
    /// Whether the cheap score costs nothing, so that a small space is looked at as a whole.
    pub free: bool,
    /// Seed.
    pub seed: u64,
}

/// What was measured of a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dear {
    /// The score that decides, larger is better.
    pub score: f64,
    /// Latency, milliseconds.
    pub latency_ms: f64,
}

/// A network that came into the second step.
#[derive(Clone, Debug, PartialEq)]
pub struct Finalist {
    /// Canonical path.
    pub path: Path,
    /// Its cheap score.
    pub cheap_score: f64,
    /// Predicted latency, milliseconds.
    pub predicted_ms: f64,
    /// What was measured.
    pub dear: Dear,
    /// Which search proposed it.
    pub found_by: FoundBy,
}

impl Finalist {
    /// Whether it keeps the limit as measured, and has a score.
    pub fn is_within(&self, budget_ms: f64) -> bool {
        self.dear.latency_ms <= budget_ms && !self.dear.score.is_nan()
    }
}

/// What such a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How the first step went about it.
    pub method: Method,
    /// Networks that the first step looked at.
    pub looked_at: usize,
    /// Front of the first step: by cheap score and predicted latency.
    pub front: Vec<Entry>,
    /// Networks of the first step that were measured, the first ones first.
    pub finalists: Vec<Finalist>,
    /// Networks of random search that were measured.
    pub random: Vec<Finalist>,
    /// The best that keeps the limit; none if none does.
    pub winner: Option<Finalist>,
    /// The network that is nearest to the limits by prediction, if none was within them.
    pub nearest: Option<Entry>,
}

impl Found {
    /// All networks that were measured.
    pub fn measured(&self) -> impl Iterator<Item = &Finalist> {
        self.finalists.iter().chain(&self.random)
    }

    /// The fastest of the networks that were measured.
    pub fn fastest(&self) -> Option<&Finalist> {
        self.measured().min_by(|a, b| number_order(a.dear.latency_ms, b.dear.latency_ms).then(a.path.cmp(&b.path)))
    }

    /// The best of random search that keeps the limit.
    pub fn best_of_random(&self, budget_ms: f64) -> Option<&Finalist> {
        best(self.random.iter(), budget_ms)
    }
}

/// The best within the limit: the highest dear score, of equal ones the faster, then the first path.
fn best<'a>(finalists: impl Iterator<Item = &'a Finalist>, budget_ms: f64) -> Option<&'a Finalist> {
    finalists.filter(|finalist| finalist.is_within(budget_ms)).min_by(|a, b| {
        let by_score = number_order(b.dear.score, a.dear.score);
        by_score.then(number_order(a.dear.latency_ms, b.dear.latency_ms)).then(a.path.cmp(&b.path))
    })
}

/// Searches in two steps.
///
/// `cheap` gives a canonical path's cheap score, predicted latency (the cost, milliseconds) and excess over all limits;
/// `keeps` says whether a path keeps those limits that are no predictions; `dear` measures paths, in order. `progress`
/// hears how many networks the first step has looked at, and of how many.
///
/// # Errors
/// Those of `cheap` and `dear`.
pub fn search<E>(
    supernet: &Supernet,
    plan: &Plan,
    mut cheap: impl FnMut(&Path) -> Result<Assessed, E>,
    keeps: impl Fn(&Path) -> bool,
    mut dear: impl FnMut(&[Path]) -> Result<Vec<Dear>, E>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Found, E> {
    let options = Nsga2Options {
        population: plan.population,
        evaluations: plan.evaluations,
        mutation: plan.mutation,
        seed: plan.seed,
    };
    let mut looked_at = 0;
    let mut all_of = |paths: &[Path]| paths.iter().map(&mut cheap).collect::<Result<Vec<_>, E>>();
    let exact = if plan.free { everything(supernet, &mut all_of)? } else { None };
    let (method, archive) = match exact {
        Some((archive, count)) => {
            looked_at = count;
            (Method::Exhaustive, archive)
        }
        None => {
            let archive = evolved(nsga2::nsga2(supernet, &options, &mut all_of, &mut progress))?;
            looked_at += archive.entries().len();
            (Method::Evolution, archive)
        }
    };
    let found_by = if method == Method::Exhaustive { FoundBy::Exhaustive } else { FoundBy::Evolution };
    // Longer lists begin with the shorter ones: what follows the finalists are their replacements.
    let listed = choose(&archive, f64::INFINITY, plan.finalists * (1 + plan.replacements));
    let mut finalists: Vec<Finalist> = Vec::new();
    for group in listed.chunks(plan.finalists.max(1)) {
        finalists.extend(measured(group, found_by, &mut dear)?);
        if finalists.iter().any(|finalist| finalist.is_within(plan.budget_ms)) {
            break;
        }
    }
    let nearest = archive.nearest().filter(|_| finalists.is_empty()).cloned();
    if let Some(nearest) = nearest.as_ref().filter(|nearest| keeps(&nearest.path)) {
        // Predictions err: what is nearest to the limits may keep them after all.
        finalists.extend(measured(&[nearest], found_by, &mut dear)?);
    }
    // Random search pays for the same number of dear evaluations.
    let count = if plan.free { finalists.len() } else { plan.evaluations };
    let options = Nsga2Options { evaluations: count, ..options };
    // What is predicted to be over the limits is passed over: it costs random search nothing.
    let within = |paths: &[Path]| -> Result<Vec<Assessed>, E> {
        let pass = |a: Assessed| if a.excess > 0.0 { Assessed { score: f64::NAN, ..a } } else { a };
        Ok(all_of(paths)?.into_iter().map(pass).collect())
    };
    let drawn = evolved(nsga2::random_search(supernet, &options, within, |_, _| {}))?;
    let random = measured(&choose(&drawn, f64::INFINITY, finalists.len()), FoundBy::RandomSearch, &mut dear)?;
    let winner = best(finalists.iter().chain(&random), plan.budget_ms).cloned();
    let front = archive.front().into_iter().cloned().collect();
    Ok(Found { method, looked_at, front, finalists, random, winner, nearest })
}

/// A look at every network of a small space, and how many there are.
fn everything<E>(
    supernet: &Supernet,
    all_of: &mut impl FnMut(&[Path]) -> Result<Vec<Assessed>, E>,
) -> Result<Option<(Archive, usize)>, E> {
    let (mut failed, mut count) = (None, 0);
    let nothing = Assessed { score: f64::NAN, cost: f64::NAN, excess: f64::NAN };
    let archive = enumerate::exact(supernet, |path| {
        if failed.is_some() {
            return nothing;
        }
        count += 1;
        match all_of(std::slice::from_ref(path)) {
            Ok(assessed) => assessed.first().copied().unwrap_or(nothing),
            Err(error) => {
                failed = Some(error);
                nothing
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(archive.map(|archive| (archive, count))),
    }
}

/// Every network of a batch is assessed here, so that no count can be wrong.
fn evolved<E>(result: Result<Archive, Nsga2Error<E>>) -> Result<Archive, E> {
    match result {
        Ok(archive) => Ok(archive),
        Err(Nsga2Error::Evaluation(error)) => Err(error),
        Err(Nsga2Error::Count { .. }) => Ok(Archive::default()),
    }
}

fn measured<E>(
    entries: &[&Entry],
    found_by: FoundBy,
    dear: &mut impl FnMut(&[Path]) -> Result<Vec<Dear>, E>,
) -> Result<Vec<Finalist>, E> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<Path> = entries.iter().map(|entry| entry.path.clone()).collect();
    let finalist = |(entry, dear): (&&Entry, Dear)| Finalist {
        path: entry.path.clone(),
        cheap_score: entry.assessed.score,
        predicted_ms: entry.assessed.cost,
        dear,
        found_by,
    };
    Ok(entries.iter().zip(dear(&paths)?).map(finalist).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;
    use crate::testing::chain;

    const PLAN: Plan = Plan {
        budget_ms: 6.0,
        evaluations: 400,
        population: 20,
        mutation: 0.1,
        finalists: 6,
        replacements: 3,
        free: true,
        seed: 1,
    };

    fn sum(path: &Path) -> f64 {
        path.choices().iter().map(|&c| f64::from(c)).sum()
    }

    /// Larger networks are better and slower: 1 ms for each unit.
    fn cheap(budget: f64) -> impl FnMut(&Path) -> Result<Assessed, Infallible> {
        move |path| Ok(Assessed { score: sum(path), cost: sum(path), excess: (sum(path) - budget).max(0.0) })
    }

    /// Latency is `factor` of what is predicted, and the score that decides prefers a first layer of 1.
    fn dear(factor: f64) -> impl FnMut(&[Path]) -> Result<Vec<Dear>, Infallible> {
        move |paths| {
            let one = |path: &Path| Dear {
                score: sum(path) + if path.choices()[0] == 1 { 0.5 } else { 0.0 },
                latency_ms: factor * sum(path),
            };
            Ok(paths.iter().map(one).collect())
        }
    }

    fn run(plan: &Plan, layers: u16, factor: f64) -> Found {
        let Ok(found) = search(&chain(layers), plan, cheap(plan.budget_ms), |_| true, dear(factor), |_, _| {});
        found
    }

    #[test]
    fn the_dear_score_decides_among_finalists_within_the_limit() {
        for (layers, method) in [(6, Method::Exhaustive), (14, Method::Evolution)] {
            let plan = Plan { budget_ms: f64::from(layers), ..PLAN };
            let found = run(&plan, layers, 1.0);
            let winner = found.winner.clone().unwrap();
            assert_eq!((found.method, found.finalists.len(), found.random.len()), (method, 6, 6));
            assert!(winner.dear.latency_ms <= plan.budget_ms && found.nearest.is_none());
            assert!(found.measured().all(|f| !f.is_within(plan.budget_ms) || f.dear.score <= winner.dear.score));
            assert_eq!(found.front.last().unwrap().assessed.cost, plan.budget_ms);
        }
        assert_eq!(run(&PLAN, 6, 1.0).looked_at, 729);
    }

    #[test]
    fn finalists_over_the_limit_as_measured_are_replaced() {
        // Everything takes half as long again as predicted: of a front of 0 to 6 ms nothing above 4 ms may win.
        let found = run(&Plan { finalists: 1, replacements: 20, ..PLAN }, 6, 1.5);
        let winner = found.winner.unwrap();
        assert!(winner.dear.latency_ms <= 6.0 && found.finalists.len() > 1, "{winner:?}");
        assert_eq!(found.random.len(), found.finalists.len());
        assert!(found.finalists.iter().rev().skip(1).all(|f| f.dear.latency_ms > 6.0));
    }

    #[test]
    fn an_impossible_limit_has_a_fastest_network_and_no_winner() {
        let supernet = chain(5);
        let slow = |path: &Path| {
            Ok::<_, Infallible>(Assessed { score: sum(path), cost: sum(path) + 3.0, excess: sum(path) + 2.0 })
        };
        let plan = Plan { budget_ms: 1.0, ..PLAN };
        let Ok(found) = search(
            &supernet,
            &plan,
            slow,
            |_| true,
            |paths: &[Path]| {
                Ok::<_, Infallible>(paths.iter().map(|p| Dear { score: 1.0, latency_ms: sum(p) + 3.0 }).collect())
            },
            |_, _| {},
        );
        assert!(found.winner.is_none() && found.front.is_empty());
        let nearest = found.nearest.clone().unwrap();
        assert_eq!(nearest.assessed.cost, 3.0);
        assert_eq!(found.fastest().unwrap().dear.latency_ms, 3.0);
        // And a prediction that was too dark does not lose it.
        let Ok(found) = search(&supernet, &plan, slow, |_| true, dear(0.0), |_, _| {});
        assert_eq!(found.winner.unwrap().path, nearest.path);
        // But limits that are no predictions are kept.
        let Ok(found) = search(&supernet, &plan, slow, |_| false, dear(0.0), |_, _| {});
        assert!(found.winner.is_none() && found.finalists.is_empty());
        assert_eq!(found.nearest.unwrap().path, nearest.path);
    }

    #[test]
    fn what_has_no_score_never_wins_and_errors_pass() {
        let supernet = chain(4);
        let nothing = |paths: &[Path]| {
            Ok::<_, Infallible>(paths.iter().map(|_| Dear { score: f64::NAN, latency_ms: 1.0 }).collect())
        };
        let Ok(found) = search(&supernet, &PLAN, cheap(6.0), |_| true, nothing, |_, _| {});
        assert!(found.winner.is_none() && found.fastest().is_some());
        let fails = |_: &Path| Err::<Assessed, _>("cheap");
        assert_eq!(search(&supernet, &PLAN, fails, |_| true, |_| Ok(Vec::new()), |_, _| {}).unwrap_err(), "cheap");
        let plan = Plan { free: false, ..PLAN };
        let fine = |path: &Path| Ok(Assessed { score: sum(path), cost: sum(path), excess: 0.0 });
        assert_eq!(search(&supernet, &plan, fine, |_| true, |_| Err("dear"), |_, _| {}).unwrap_err(), "dear");
    }

    #[test]
    fn equal_seeds_find_the_same() {
        let plan = Plan { budget_ms: 14.0, ..PLAN };
        let (a, b) = (run(&plan, 14, 1.1), run(&plan, 14, 1.1));
        assert_eq!((a.finalists, a.random, a.winner), (b.finalists, b.random, b.winner));
        assert_ne!(run(&Plan { seed: 2, ..plan }, 14, 1.1).random, run(&plan, 14, 1.1).random);
    }
}
