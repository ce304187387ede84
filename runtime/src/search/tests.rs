//! Searches with objectives whose best network is known.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;

use super::*;
use crate::testing::chain;

/// A sum of a worth of every choice, none equal to another.
fn worth(path: &Path) -> f64 {
    let each = path.choices().iter().enumerate();
    each.map(|(i, &c)| f64::from(c) * (1.0 + 0.37 * (i as f64 * 1.7).sin()) - f64::from(c == 2) * 0.4).sum()
}

fn options(limits: Limits, evaluations: usize) -> SearchOptions {
    SearchOptions { limits, evaluations, seed: 0, parents: 10, population: 20, mutation: 0.1 }
}

/// A limit on MACs between the cheapest and the dearest network: the given share of the way.
fn limits(supernet: &Supernet, costs: &CostTable, share: f64) -> Limits {
    let of = |operator| supernet.choices.iter().map(move |c| c.candidates.iter().position(|&o| o == operator));
    let all = |operator| Path::new(&of(operator).map(|at| at.unwrap() as u8).collect::<Vec<_>>()).unwrap();
    let [least, most] = [1, 3].map(|operator| costs.cost(&all(operator)).macs as f64);
    Limits { macs: Some((least + share * (most - least)) as u64), ..Default::default() }
}

fn run(supernet: &Supernet, options: &SearchOptions, objective: impl Fn(&Path) -> f64) -> Outcome {
    let costs = CostTable::new(supernet);
    search::<()>(supernet, &costs, options, |path| Ok(objective(path)), |_, _| {}).unwrap()
}

/// The best network within the limits, by looking at all.
fn optimum(supernet: &Supernet, costs: &CostTable, limits: &Limits) -> Path {
    let within = |path: &Path| supernet.canonical(path) == *path && limits.excess(&costs.cost(path)) == 0.0;
    let paths = supernet.paths().filter(within);
    paths.max_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap()
}

fn all_differ_and_are_within(outcome: &Outcome, limits: &Limits) {
    for found in [&outcome.evaluated, &outcome.random] {
        let paths: HashSet<&Path> = found.iter().map(|c| &c.path).collect();
        assert_eq!(paths.len(), found.len(), "a network was evaluated twice");
        assert!(found.iter().all(|c| limits.excess(&c.cost) == 0.0), "a network is over the limits");
    }
    let all = outcome.evaluated.iter().chain(&outcome.random);
    assert_eq!(outcome.best.score, all.map(|c| c.score).fold(f64::NEG_INFINITY, f64::max));
}

#[test]
fn an_exhaustive_search_finds_the_optimum_and_compares_with_nothing() {
    let supernet = chain(6);
    let costs = CostTable::new(&supernet);
    for share in [0.3, 0.55, 1.0] {
        let limits = limits(&supernet, &costs, share);
        let outcome = run(&supernet, &options(limits, 1000), worth);
        assert_eq!(outcome.method, Method::Exhaustive);
        assert_eq!(outcome.best.path, optimum(&supernet, &costs, &limits));
        all_differ_and_are_within(&outcome, &limits);
        assert!(outcome.random_best.is_none() && outcome.random.is_empty());
        assert_eq!((outcome.found_by, outcome.evolution_best), (FoundBy::Exhaustive, None));
    }
}

#[test]
fn evolution_finds_the_optimum_with_few_looks() {
    const EVALUATIONS: usize = 500;
    let supernet = chain(8);
    let costs = CostTable::new(&supernet);
    let limits = limits(&supernet, &costs, 0.55);
    let best = worth(&optimum(&supernet, &costs, &limits));
    let mut found = 0;
    for seed in 0..8 {
        let outcome = run(&supernet, &SearchOptions { seed, ..options(limits, EVALUATIONS) }, worth);
        assert_eq!((outcome.method, outcome.evaluated.len()), (Method::Evolution, EVALUATIONS));
        all_differ_and_are_within(&outcome, &limits);
        assert_eq!(outcome.found_by, FoundBy::Evolution, "seed {seed}: random search did better");
        assert_eq!(outcome.evolution_best.as_ref(), Some(&outcome.best));
        found += usize::from(outcome.best.score == best);
    }
    assert!(found >= 6, "only {found} of 8 searches found the optimum");
}

#[test]
fn evolution_stays_within_tight_limits_of_a_space_too_large_to_list() {
    let supernet = chain(30);
    let costs = CostTable::new(&supernet);
    let limits = limits(&supernet, &costs, 0.1);
    let outcome = run(&supernet, &options(limits, 200), worth);
    assert_eq!((outcome.method, outcome.evaluated.len()), (Method::Evolution, 200));
    all_differ_and_are_within(&outcome, &limits);
}

#[test]
fn scores_that_are_no_numbers_win_nothing() {
    let supernet = chain(3);
    let costs = CostTable::new(&supernet);
    // Most networks have no score.
    let partly = |path: &Path| if path.choices().contains(&2) { f64::NAN } else { worth(path) };
    for evaluations in [12, 100] {
        let outcome =
            run(&supernet, &SearchOptions { population: 2, ..options(Limits::default(), evaluations) }, partly);
        assert!(!outcome.best.score.is_nan());
        assert!(outcome.random_best.is_none_or(|best| !best.score.is_nan()));
        let none =
            search::<()>(&supernet, &costs, &options(Limits::default(), evaluations), |_| Ok(f64::NAN), |_, _| {});
        assert!(matches!(none, Err(SearchError::NoScore { evaluated }) if evaluated > 0));
    }
}

/// An objective that leads evolution astray: all scores are equal but for one that random search alone meets.
#[test]
fn the_best_network_is_kept_whichever_part_of_the_search_met_it() {
    let supernet = chain(8);
    let options = options(Limits::default(), 60);
    let flat = run(&supernet, &options, |_| 1.0);
    assert_eq!(flat.found_by, FoundBy::Evolution);
    let evolved: HashSet<&Path> = flat.evaluated.iter().map(|c| &c.path).collect();
    let lucky = flat.random.iter().map(|c| &c.path).find(|path| !evolved.contains(path)).unwrap();
    for (good, bad) in [(2.0, 1.0), (1.0, f64::NAN)] {
        let outcome = run(&supernet, &options, |path| if path == lucky { good } else { bad });
        assert_eq!((&outcome.best.path, outcome.best.score, outcome.found_by), (lucky, good, FoundBy::RandomSearch));
        // Both parts are told as they are.
        assert_eq!(outcome.evolution_best.map(|c| c.score), (!bad.is_nan()).then_some(bad));
        assert_eq!(outcome.random_best.as_ref(), Some(&outcome.best));
        assert!(outcome.evaluated.iter().all(|c| c.path != *lucky));
    }
}

#[test]
fn of_equal_scores_the_cheapest_then_the_first_wins() {
    let candidate = |choices: &[u8], score, macs| Candidate {
        path: Path::new(choices).unwrap(),
        score,
        cost: Cost { macs, ..Cost::default() },
    };
    let of = |candidates: &[Candidate]| best_of(candidates).map(|c| c.path);
    let [dear, late, early] = [candidate(&[0], 1.0, 9), candidate(&[2], 1.0, 5), candidate(&[1], 1.0, 5)];
    let [worse, none] = [candidate(&[3], 0.5, 1), candidate(&[4], f64::NAN, 1)];
    for order in [[&dear, &late, &early, &worse, &none], [&none, &worse, &early, &late, &dear]] {
        assert_eq!(of(&order.map(Clone::clone)), Some(early.path.clone()));
    }
    assert_eq!(of(&[none.clone(), worse.clone()]), Some(worse.path));
    assert_eq!(of(&[none]), None);
    assert_eq!(of(&[]), None);
}

/// The work is counted by the random numbers that it takes.
#[test]
fn an_impossible_limit_in_a_large_space_is_given_up_soon() {
    const MOST_WORDS: u128 = 100_000;
    let supernet = chain(30);
    let costs = CostTable::new(&supernet);
    let limits = Limits { macs: Some(1), ..Default::default() };
    let mut pool = Pool::new(&supernet, &costs, limits, 0);
    assert!(pool.feasible.is_none());
    assert_eq!(pool.random(&HashMap::<Path, ()>::new()), None);
    let words = pool.rng.get_word_pos();
    // A draw of a path takes a word a choice, a step two; 2000 draws of 2000 steps each would take eight million.
    assert!(words < MOST_WORDS, "{words} words");
    let outcome = search::<()>(&supernet, &costs, &options(limits, 50), |_| Ok(0.0), |_, _| {});
    let Err(SearchError::Infeasible { nearest, excess, .. }) = outcome else { panic!("it is infeasible") };
    // The nearest network is the cheapest: nothing but identities.
    assert!(excess > 0.0 && nearest.choices().iter().all(|&c| c == 0), "{nearest:?}");
}
