//! A search in two steps: what is cheap filters, what is dear decides.
//!
//! NSGA-II (or, in a small space or a list, a look at every network) finds the front of a cheap score and of the predicted
//! latency within the limits. A few networks of it are the finalists: their dear score and their latency are measured, and
//! the winner is the best of those that keep the limits *as measured*; those that do not are replaced. Random search gets
//! as many dear evaluations, measured together with the finalists'.

use nasbn_models::{Path, Supernet};
use serde::Serialize;

use super::{
    ENUMERABLE, FoundBy, Method,
    archive::{Archive, Assessed, Entry},
    breed::Breeder,
    choose::choose,
    enumerate::networks,
    nsga2::{self, Nsga2Error, Nsga2Options},
    pareto::number_order,
    sieve::{Sieve, Sieved},
};

/// Stream of the seed for random search.
const RANDOM_STREAM: u64 = 4;

/// Limits on what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Most latency, milliseconds.
    pub latency_ms: f64,
    /// Most energy of one run, millijoules.
    pub energy_mj: Option<f64>,
}

/// How such a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What networks must keep as measured.
    pub budget: Budget,
    /// Most networks that the cheap step looks at, where it does not look at all.
    pub evaluations: usize,
    /// Networks in a generation.
    pub population: usize,
    /// Probability that a choice mutates.
    pub mutation: f64,
    /// Networks whose dear score and latency are measured, and as many for random search.
    pub finalists: usize,
    /// How many times as many may be measured in all to replace those that do not keep the budget.
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
    /// Energy of one run, millijoules, where it can be measured.
    pub energy_mj: Option<f64>,
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
    /// Whether it keeps the budget as measured.
    pub fn keeps(&self, budget: &Budget) -> bool {
        let energy = self.dear.energy_mj.zip(budget.energy_mj).is_none_or(|(energy, limit)| energy <= limit);
        self.dear.latency_ms <= budget.latency_ms && energy
    }

    /// Whether it may win: it keeps the budget, and has a score.
    fn is_eligible(&self, budget: &Budget) -> bool {
        self.keeps(budget) && !self.dear.score.is_nan()
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
    /// Networks of random search that were measured: as many, unless it met fewer within the limits.
    pub random: Vec<Finalist>,
    /// The best that keeps the budget; none if none does.
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

    /// The best of random search that keeps the budget.
    pub fn best_of_random(&self, budget: &Budget) -> Option<&Finalist> {
        best(self.random.iter(), budget)
    }
}

/// The best within the budget: the highest dear score, of equal ones the faster, then the first path.
fn best<'a>(finalists: impl Iterator<Item = &'a Finalist>, budget: &Budget) -> Option<&'a Finalist> {
    finalists.filter(|finalist| finalist.is_eligible(budget)).min_by(|a, b| {
        let by_score = number_order(b.dear.score, a.dear.score);
        by_score.then(number_order(a.dear.latency_ms, b.dear.latency_ms)).then(a.path.cmp(&b.path))
    })
}

/// Searches in two steps, among all networks or (`among`) the given canonical paths.
///
/// `cheap` gives a canonical path's cheap score, predicted latency (the cost, milliseconds) and excess over all limits;
/// `keeps` says whether a path keeps all limits but that on latency, as far as is known before it is measured; `dear`
/// measures paths, in order. `progress` hears how many networks the first step has looked at, and of how many.
///
/// # Errors
/// Those of `cheap` and `dear`.
pub fn search<E>(
    supernet: &Supernet,
    plan: &Plan,
    among: Option<&[Path]>,
    mut cheap: impl FnMut(&Path) -> Result<Assessed, E>,
    keeps: impl Fn(&Path) -> bool,
    mut dear: impl FnMut(&[Path]) -> Result<Vec<Dear>, E>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Found, E> {
    let most = plan.finalists.saturating_mul(1 + plan.replacements);
    let listed: Option<Box<dyn Iterator<Item = Path> + '_>> = match among {
        Some(paths) => Some(Box::new(paths.iter().cloned())),
        None if plan.free && supernet.path_count() <= ENUMERABLE => Some(Box::new(networks(supernet))),
        None => None,
    };
    let (method, looked_at, archive, random) = match listed {
        Some(paths) => {
            let Sieved { archive, sample, count } = look_at_all(paths, most, plan.seed, &mut cheap)?;
            (Method::Exhaustive, count, archive, sample)
        }
        None => {
            let options = Nsga2Options {
                population: plan.population,
                evaluations: plan.evaluations,
                mutation: plan.mutation,
                seed: plan.seed,
            };
            let mut all_of = |paths: &[Path]| paths.iter().map(&mut cheap).collect::<Result<Vec<_>, E>>();
            let archive = evolved(nsga2::nsga2(supernet, &options, &mut all_of, &mut progress))?;
            let random = match plan.free {
                true => drawn(supernet, plan, most, &mut cheap)?,
                // Every look is dear: random search has as many, and proposes the best of them.
                false => {
                    let archive = evolved(nsga2::random_search(supernet, &options, &mut all_of, |_, _| {}))?;
                    choose(&archive, f64::INFINITY, most).into_iter().cloned().collect()
                }
            };
            (Method::Evolution, archive.entries().len(), archive, random)
        }
    };
    let found_by = if method == Method::Exhaustive { FoundBy::Exhaustive } else { FoundBy::Evolution };
    let mut next_random = random.iter();
    let (mut finalists, mut random): (Vec<Finalist>, Vec<Finalist>) = (Vec::new(), Vec::new());
    loop {
        let within = finalists.iter().filter(|finalist| finalist.keeps(&plan.budget)).count();
        let wanted = plan.finalists.saturating_sub(within).min(most - finalists.len());
        // Networks that took longer than predicted foretell that others do.
        let limit = plan.budget.latency_ms / longer(&finalists);
        let known = |entry: &&Entry| finalists.iter().any(|finalist| finalist.path == entry.path);
        let next = choose(&archive, limit, finalists.len() + most).into_iter().filter(|entry| !known(entry));
        let group: Vec<&Entry> = next.take(wanted).collect();
        if group.is_empty() {
            break;
        }
        // Both searches' networks are measured together, so that a drift of the machine is no advantage.
        let peers: Vec<&Entry> = next_random.by_ref().take(group.len()).collect();
        let mut measured = measured(&[&group[..], &peers].concat(), &mut dear)?;
        let of_random = measured.split_off(group.len().min(measured.len()));
        finalists.extend(measured.into_iter().map(|(entry, dear)| finalist(entry, dear, found_by)));
        random.extend(of_random.into_iter().map(|(entry, dear)| finalist(entry, dear, FoundBy::RandomSearch)));
    }
    let nearest = archive.nearest().filter(|_| finalists.is_empty()).cloned();
    if let Some(nearest) = nearest.as_ref().filter(|nearest| keeps(&nearest.path)) {
        // Predictions err: what is nearest to the limits may keep them after all.
        finalists.extend(measured(&[nearest], &mut dear)?.into_iter().map(|(e, dear)| finalist(e, dear, found_by)));
    }
    let winner = best(finalists.iter().chain(&random), &plan.budget).cloned();
    let front = archive.front().into_iter().cloned().collect();
    Ok(Found { method, looked_at, front, finalists, random, winner, nearest })
}

/// How many times as long as predicted networks took, as a median; at least 1, and 1 before any is measured.
fn longer(finalists: &[Finalist]) -> f64 {
    let ratio = |finalist: &Finalist| finalist.dear.latency_ms / finalist.predicted_ms;
    let mut ratios: Vec<f64> = finalists.iter().map(ratio).filter(|ratio| ratio.is_finite()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0).max(1.0)
}

/// A look at every one of different networks.
fn look_at_all<E>(
    paths: impl Iterator<Item = Path>,
    keep: usize,
    seed: u64,
    cheap: &mut impl FnMut(&Path) -> Result<Assessed, E>,
) -> Result<Sieved, E> {
    let mut sieve = Sieve::new(keep, seed, RANDOM_STREAM);
    for path in paths {
        let assessed = cheap(&path)?;
        sieve.push(Entry { path, assessed });
    }
    Ok(sieve.end())
}

/// Random networks within the limits, by as many looks as the search has.
fn drawn<E>(
    supernet: &Supernet,
    plan: &Plan,
    most: usize,
    cheap: &mut impl FnMut(&Path) -> Result<Assessed, E>,
) -> Result<Vec<Entry>, E> {
    let mut breeder = Breeder::new(supernet, plan.seed, RANDOM_STREAM);
    let mut entries = Vec::new();
    for _ in 0..plan.evaluations {
        let Some(path) = breeder.random().filter(|_| entries.len() < most) else { break };
        let assessed = cheap(&path)?;
        if assessed.is_feasible() {
            entries.push(Entry { path, assessed });
        }
    }
    Ok(entries)
}

/// Every network of a batch is assessed here, so that no count can be wrong.
fn evolved<E>(result: Result<Archive, Nsga2Error<E>>) -> Result<Archive, E> {
    match result {
        Ok(archive) => Ok(archive),
        Err(Nsga2Error::Evaluation(error)) => Err(error),
        Err(Nsga2Error::Count { .. }) => Ok(Archive::default()),
    }
}

fn finalist(entry: &Entry, dear: Dear, found_by: FoundBy) -> Finalist {
    let Assessed { score, cost, .. } = entry.assessed;
    Finalist { path: entry.path.clone(), cheap_score: score, predicted_ms: cost, dear, found_by }
}

/// Entries with what was measured of them; each network is measured once.
fn measured<'a, E>(
    entries: &[&'a Entry],
    dear: &mut impl FnMut(&[Path]) -> Result<Vec<Dear>, E>,
) -> Result<Vec<(&'a Entry, Dear)>, E> {
    let mut paths: Vec<Path> = Vec::new();
    for entry in entries {
        if !paths.contains(&entry.path) {
            paths.push(entry.path.clone());
        }
    }
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let measured = dear(&paths)?;
    let of = |entry: &&'a Entry| {
        let place = paths.iter().position(|path| *path == entry.path)?;
        Some((*entry, *measured.get(place)?))
    };
    Ok(entries.iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;
    use crate::testing::chain;

    const PLAN: Plan = Plan {
        budget: Budget { latency_ms: 6.0, energy_mj: None },
        evaluations: 400,
        population: 20,
        mutation: 0.1,
        finalists: 6,
        replacements: 3,
        free: true,
        seed: 1,
    };

    fn within(latency_ms: f64) -> Budget {
        Budget { latency_ms, energy_mj: None }
    }

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
                energy_mj: None,
            };
            Ok(paths.iter().map(one).collect())
        }
    }

    fn run(plan: &Plan, layers: u16, factor: f64) -> Found {
        let Ok(found) =
            search(&chain(layers), plan, None, cheap(plan.budget.latency_ms), |_| true, dear(factor), |_, _| {});
        found
    }

    #[test]
    fn the_dear_score_decides_among_finalists_within_the_limit() {
        for (layers, method) in [(6, Method::Exhaustive), (14, Method::Evolution)] {
            let plan = Plan { budget: within(f64::from(layers)), ..PLAN };
            let found = run(&plan, layers, 1.0);
            let winner = found.winner.clone().unwrap();
            assert_eq!((found.method, found.finalists.len(), found.random.len()), (method, 6, 6));
            assert!(winner.dear.latency_ms <= plan.budget.latency_ms && found.nearest.is_none());
            assert!(found.measured().all(|f| !f.keeps(&plan.budget) || f.dear.score <= winner.dear.score));
            assert_eq!(found.front.last().unwrap().assessed.cost, plan.budget.latency_ms);
        }
        assert_eq!(run(&PLAN, 6, 1.0).looked_at, 729);
    }

    #[test]
    fn finalists_over_the_limit_as_measured_are_replaced() {
        // Everything takes half as long again as predicted, so the best scores within 6 ms are all over it. A cheap one of
        // the spread is not, and still the others are replaced, by such as are expected to keep it.
        let plan = Plan { replacements: 20, ..PLAN };
        let found = run(&plan, 6, 1.5);
        let winner = found.winner.unwrap();
        assert!(found.finalists.len() > plan.finalists);
        assert!(found.finalists[plan.finalists..].iter().all(|f| f.keeps(&plan.budget)));
        assert_eq!(winner.dear.latency_ms, 6.0, "4 units are the most that take 6 ms: {winner:?}");
        assert_eq!(found.random.len(), found.finalists.len());
        // Where replacements are used up it ends.
        let few = run(&Plan { replacements: 0, finalists: 3, ..PLAN }, 6, 1.5);
        assert_eq!(few.finalists.len(), 3);
    }

    #[test]
    fn a_list_is_looked_at_as_a_whole_in_a_space_of_any_size() {
        let supernet = chain(40);
        let list: Vec<Path> = (0..12u8)
            .map(|i| Path::new(&[&vec![1; usize::from(i)][..], &vec![0; 40 - usize::from(i)]].concat()).unwrap())
            .collect();
        let plan = Plan { budget: within(8.5), finalists: 4, ..PLAN };
        let Ok(found) = search(&supernet, &plan, Some(&list), cheap(8.5), |_| true, dear(1.0), |_, _| {});
        assert_eq!((found.method, found.looked_at), (Method::Exhaustive, 12));
        assert_eq!(found.winner.unwrap().path, list[8]);
        assert_eq!((found.finalists.len(), found.random.len()), (4, 4));
        assert!(found.random.iter().all(|f| list.contains(&f.path)));
    }

    #[test]
    fn random_search_has_as_many_dear_looks_where_few_networks_fit() {
        // One network in some hundreds is within the limits.
        for layers in [6, 16] {
            let supernet = chain(layers);
            let rare = |path: &Path| {
                let excess = if path.choices()[..5].iter().all(|&c| c == 1) { 0.0 } else { 1.0 };
                Ok::<_, Infallible>(Assessed { score: sum(path), cost: sum(path), excess })
            };
            let plan = Plan { budget: within(99.0), finalists: 3, replacements: 0, evaluations: 20_000, ..PLAN };
            let Ok(found) = search(&supernet, &plan, None, rare, |_| true, dear(1.0), |_, _| {});
            assert_eq!((found.finalists.len(), found.random.len()), (3, 3), "{layers}");
        }
    }

    #[test]
    fn energy_is_a_limit_as_measured_too() {
        let budget = Budget { latency_ms: 99.0, energy_mj: Some(20.0) };
        let plan = Plan { budget, finalists: 4, replacements: 20, ..PLAN };
        let dear = |paths: &[Path]| {
            let one = |p: &Path| Dear { score: sum(p), latency_ms: 1.0, energy_mj: Some(5.0 * sum(p)) };
            Ok::<_, Infallible>(paths.iter().map(one).collect())
        };
        let Ok(found) = search(&chain(5), &plan, None, cheap(99.0), |_| true, dear, |_, _| {});
        assert_eq!(found.winner.unwrap().dear.energy_mj, Some(20.0));
        // What is known to be over it before it is measured never wins, however near it is to the other limits.
        let plan = Plan { budget: Budget { latency_ms: 1.0, energy_mj: Some(1.0) }, ..plan };
        let over = |path: &Path| Ok::<_, Infallible>(Assessed { score: 1.0, cost: 1.0, excess: 1.0 + sum(path) });
        let Ok(found) = search(&chain(5), &plan, None, over, |_| false, dear, |_, _| {});
        assert!(found.winner.is_none() && found.finalists.is_empty());
    }

    #[test]
    fn an_impossible_limit_has_a_fastest_network_and_no_winner() {
        let supernet = chain(5);
        let slow = |path: &Path| {
            Ok::<_, Infallible>(Assessed { score: sum(path), cost: sum(path) + 3.0, excess: sum(path) + 2.0 })
        };
        let plan = Plan { budget: within(1.0), ..PLAN };
        let Ok(found) = search(
            &supernet,
            &plan,
            None,
            slow,
            |_| true,
            |paths: &[Path]| {
                Ok::<_, Infallible>(
                    paths.iter().map(|p| Dear { score: 1.0, latency_ms: sum(p) + 3.0, energy_mj: None }).collect(),
                )
            },
            |_, _| {},
        );
        assert!(found.winner.is_none() && found.front.is_empty());
        let nearest = found.nearest.clone().unwrap();
        assert_eq!(nearest.assessed.cost, 3.0);
        assert_eq!(found.fastest().unwrap().dear.latency_ms, 3.0);
        // And a prediction that was too dark does not lose it.
        let Ok(found) = search(&supernet, &plan, None, slow, |_| true, dear(0.0), |_, _| {});
        assert_eq!(found.winner.unwrap().path, nearest.path);
        // But limits that are no predictions are kept.
        let Ok(found) = search(&supernet, &plan, None, slow, |_| false, dear(0.0), |_, _| {});
        assert!(found.winner.is_none() && found.finalists.is_empty());
        assert_eq!(found.nearest.unwrap().path, nearest.path);
    }

    #[test]
    fn what_has_no_score_never_wins_and_errors_pass() {
        let supernet = chain(4);
        let nothing = |paths: &[Path]| {
            Ok::<_, Infallible>(
                paths.iter().map(|_| Dear { score: f64::NAN, latency_ms: 1.0, energy_mj: None }).collect(),
            )
        };
        let Ok(found) = search(&supernet, &PLAN, None, cheap(6.0), |_| true, nothing, |_, _| {});
        assert!(found.winner.is_none() && found.fastest().is_some());
        let fails = |_: &Path| Err::<Assessed, _>("cheap");
        assert_eq!(
            search(&supernet, &PLAN, None, fails, |_| true, |_| Ok(Vec::new()), |_, _| {}).unwrap_err(),
            "cheap"
        );
        let plan = Plan { free: false, ..PLAN };
        let fine = |path: &Path| Ok(Assessed { score: sum(path), cost: sum(path), excess: 0.0 });
        assert_eq!(search(&supernet, &plan, None, fine, |_| true, |_| Err("dear"), |_, _| {}).unwrap_err(), "dear");
    }

    #[test]
    fn equal_seeds_find_the_same() {
        let plan = Plan { budget: within(14.0), ..PLAN };
        let (a, b) = (run(&plan, 14, 1.1), run(&plan, 14, 1.1));
        assert_eq!((a.finalists, a.random, a.winner), (b.finalists, b.random, b.winner));
        assert_ne!(run(&Plan { seed: 2, ..plan }, 14, 1.1).random, run(&plan, 14, 1.1).random);
    }
}
