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
fn cheap(budget: f64) -> impl FnMut(&Path, &Margins) -> Result<Assessed, Infallible> {
    move |path, margins| {
        let excess = (margins.latency * sum(path) - budget).max(0.0);
        Ok(Assessed { score: sum(path), cost: sum(path), excess })
    }
}

/// Latency is `factor` of what is predicted, and the score that decides prefers a first layer of 1.
fn dear(factor: f64) -> impl FnMut(&[Path]) -> Result<Vec<Dear>, Infallible> {
    move |paths| {
        let one = |path: &Path| Dear {
            score: sum(path) + if path.choices()[0] == 1 { 0.5 } else { 0.0 },
            latency_ms: factor * sum(path),
            energy_mj: None,
            predicted_mj: None,
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
    assert_eq!((found.method, found.looked_at), (Method::List, 12));
    assert_eq!(found.winner.unwrap().path, list[8]);
    assert_eq!((found.finalists.len(), found.random.len()), (4, 4));
    assert!(found.random.iter().all(|f| list.contains(&f.path)));
}

#[test]
fn random_search_has_as_many_dear_looks_where_few_networks_fit() {
    // One network in some hundreds is within the limits.
    for layers in [6, 16] {
        let supernet = chain(layers);
        let rare = |path: &Path, _: &Margins| {
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
        let one = |p: &Path| Dear { score: sum(p), latency_ms: 1.0, energy_mj: Some(5.0 * sum(p)), predicted_mj: None };
        Ok::<_, Infallible>(paths.iter().map(one).collect())
    };
    let Ok(found) = search(&chain(5), &plan, None, cheap(99.0), |_| true, dear, |_, _| {});
    assert_eq!(found.winner.unwrap().dear.energy_mj, Some(20.0));
    // What is known to be over it before it is measured never wins, however near it is to the other limits.
    let plan = Plan { budget: Budget { latency_ms: 1.0, energy_mj: Some(1.0) }, ..plan };
    let over =
        |path: &Path, _: &Margins| Ok::<_, Infallible>(Assessed { score: 1.0, cost: 1.0, excess: 1.0 + sum(path) });
    let Ok(found) = search(&chain(5), &plan, None, over, |_| false, dear, |_, _| {});
    assert!(found.winner.is_none() && found.finalists.is_empty());
}

#[test]
fn an_impossible_limit_has_a_fastest_network_and_no_winner() {
    let supernet = chain(5);
    let slow = |path: &Path, _: &Margins| {
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
                paths
                    .iter()
                    .map(|p| Dear { score: 1.0, latency_ms: sum(p) + 3.0, energy_mj: None, predicted_mj: None })
                    .collect(),
            )
        },
        |_, _| {},
    );
    assert!(found.winner.is_none() && found.front.is_empty());
    assert_eq!(found.finalists.len(), 1, "others are hopeless");
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
            paths
                .iter()
                .map(|_| Dear { score: f64::NAN, latency_ms: 1.0, energy_mj: None, predicted_mj: None })
                .collect(),
        )
    };
    let Ok(found) = search(&supernet, &PLAN, None, cheap(6.0), |_| true, nothing, |_, _| {});
    assert!(found.winner.is_none() && found.fastest().is_some());
    let fails = |_: &Path, _: &Margins| Err::<Assessed, _>("cheap");
    assert_eq!(search(&supernet, &PLAN, None, fails, |_| true, |_| Ok(Vec::new()), |_, _| {}).unwrap_err(), "cheap");
    let plan = Plan { free: false, ..PLAN };
    let fine = |path: &Path, _: &Margins| Ok(Assessed { score: sum(path), cost: sum(path), excess: 0.0 });
    assert_eq!(search(&supernet, &plan, None, fine, |_| true, |_| Err("dear"), |_, _| {}).unwrap_err(), "dear");
}

#[test]
fn equal_seeds_find_the_same() {
    let plan = Plan { budget: within(14.0), ..PLAN };
    let (a, b) = (run(&plan, 14, 1.1), run(&plan, 14, 1.1));
    assert_eq!((a.finalists, a.random, a.winner), (b.finalists, b.random, b.winner));
    assert_ne!(run(&Plan { seed: 2, ..plan }, 14, 1.1).random, run(&plan, 14, 1.1).random);
}

/// A score of its own for every network; larger networks are better.
fn scattered(path: &Path) -> f64 {
    let mix = |hash: u32, c: &u8| (hash ^ u32::from(*c)).wrapping_mul(0x9E37_79B1).rotate_left(7);
    sum(path) + f64::from(path.choices().iter().fold(1, mix)) / f64::from(u32::MAX)
}

#[test]
fn replacements_do_not_dry_up_where_a_space_is_looked_at_as_a_whole() {
    // All take half as long again as predicted: hundreds keep 6 ms, and not one of the best scores within a predicted 6 ms.
    let cheap = |path: &Path, margins: &Margins| {
        let excess = (margins.latency * sum(path) - 6.0).max(0.0);
        Ok::<_, Infallible>(Assessed { score: scattered(path), cost: sum(path), excess })
    };
    let dear = |paths: &[Path]| {
        let one =
            |p: &Path| Dear { score: scattered(p), latency_ms: 1.5 * sum(p), energy_mj: None, predicted_mj: None };
        Ok::<_, Infallible>(paths.iter().map(one).collect())
    };
    let plan = Plan { finalists: 40, ..PLAN };
    let supernet = chain(8);
    let Ok(found) = search(&supernet, &plan, None, cheap, |_| true, dear, |_, _| {});
    assert_eq!(found.finalists.iter().filter(|f| f.keeps(&plan.budget)).count(), plan.finalists);
    assert!(found.finalists.len() < 4 * plan.finalists && found.random.len() == found.finalists.len());
    let mut all: Vec<f64> = networks(&supernet).filter(|path| 1.5 * sum(path) <= 6.0).map(|p| scattered(&p)).collect();
    all.sort_by(f64::total_cmp);
    assert!(all.len() > 4 * plan.finalists);
    assert_eq!(found.winner.map(|w| w.dear.score), all.last().copied());
}

#[test]
fn predictions_that_are_too_high_keep_no_network_out() {
    let supernet = chain(6);
    // At 6 ms some networks are within the limit by prediction, at 0.7 ms none is. As measured all are, and those of up to
    // 2 ms predicted.
    for (budget, slowest) in [(6.0, 13.0 / 3.0), (0.7, 2.0 / 3.0)] {
        let plan = Plan { budget: within(budget), ..PLAN };
        let third = |paths: &[Path]| {
            let one = |p: &Path| {
                let latency_ms = (sum(p) + 1.0) / 3.0;
                Dear { score: sum(p), latency_ms, energy_mj: None, predicted_mj: None }
            };
            Ok::<_, Infallible>(paths.iter().map(one).collect())
        };
        let cheap = |path: &Path, margins: &Margins| {
            let excess = (margins.latency * (sum(path) + 1.0) - budget).max(0.0);
            Ok::<_, Infallible>(Assessed { score: sum(path), cost: sum(path) + 1.0, excess })
        };
        let Ok(found) = search(&supernet, &plan, None, cheap, |_| true, third, |_, _| {});
        assert_eq!(found.winner.unwrap().dear.latency_ms, slowest, "{budget}");
        assert!(found.margins.latency < CLOSE);
        assert_eq!(found.nearest.is_some(), budget < 1.0);
    }
}

#[test]
fn what_has_no_measured_energy_keeps_no_limit_on_it() {
    let unknown = Dear { score: 1.0, latency_ms: 1.0, energy_mj: None, predicted_mj: Some(1.0) };
    let path = Path::new(&[0]).unwrap();
    let found_by = FoundBy::Exhaustive;
    let finalist = Finalist { path, cheap_score: 1.0, predicted_ms: 1.0, dear: unknown, found_by };
    assert!(finalist.keeps(&within(2.0)));
    assert!(!finalist.keeps(&Budget { latency_ms: 2.0, energy_mj: Some(1e9) }));
}

#[test]
fn energy_has_a_margin_as_latency_has() {
    // A run takes twice the energy that is predicted.
    let budget = Budget { latency_ms: 99.0, energy_mj: Some(6.0) };
    let plan = Plan { budget, finalists: 8, replacements: 1, ..PLAN };
    let cheap = |path: &Path, margins: &Margins| {
        let excess = (margins.energy * sum(path) - 6.0).max(0.0);
        Ok::<_, Infallible>(Assessed { score: sum(path), cost: 1.0, excess })
    };
    let dear = |paths: &[Path]| {
        let one = |p: &Path| {
            let energy = sum(p);
            Dear { score: energy, latency_ms: 1.0, energy_mj: Some(2.0 * energy), predicted_mj: Some(energy) }
        };
        Ok::<_, Infallible>(paths.iter().map(one).collect())
    };
    let Ok(found) = search(&chain(6), &plan, None, cheap, |_| true, dear, |_, _| {});
    assert!(found.finalists[..plan.finalists].iter().any(|f| !f.keeps(&budget)));
    assert_eq!(found.finalists.len(), 2 * plan.finalists);
    assert!(found.finalists[plan.finalists..].iter().all(|f| f.keeps(&budget)));
    assert_eq!((found.margins.energy, found.winner.unwrap().dear.energy_mj), (2.0, Some(6.0)));
}

/// A list of networks, each with what is predicted and measured of its latency, milliseconds; the first have the best scores.
fn listed(plan: &Plan, networks: &[(f64, f64)], keeps: impl Fn(usize) -> bool) -> Found {
    let list: Vec<Path> = (0..networks.len()).map(|i| Path::new(&[i as u8; 2]).unwrap()).collect();
    let place = |path: &Path| usize::from(path.choices()[0]);
    let limit = plan.budget.latency_ms;
    let cheap = |path: &Path, margins: &Margins| {
        let (predicted, known) = (networks[place(path)].0, if keeps(place(path)) { 0.0 } else { 0.01 });
        let excess = (margins.latency * predicted / limit - 1.0).max(known);
        Ok::<_, Infallible>(Assessed { score: -(place(path) as f64), cost: predicted, excess })
    };
    let dear = |paths: &[Path]| {
        let one = |path: &Path| Dear {
            score: -(place(path) as f64),
            latency_ms: networks[place(path)].1,
            energy_mj: None,
            predicted_mj: None,
        };
        Ok(paths.iter().map(one).collect())
    };
    let Ok(found) = search(&chain(2), plan, Some(&list), cheap, |path| keeps(place(path)), dear, |_, _| {});
    found
}

#[test]
fn no_budget_is_impossible_before_the_nearest_networks_were_measured() {
    let plan = Plan { budget: within(8.0), finalists: 1, ..PLAN };
    let winner = |found: &Found| found.winner.as_ref().map(|winner| winner.path.choices()[0]);
    // The first took so much more than predicted that all others are kept out, also the one that keeps the budget.
    assert_eq!(winner(&listed(&plan, &[(7.9, 8.7), (7.5, 7.7)], |_| true)), Some(1));
    // So does not the fastest, but the next; one that is over another limit is never measured, though it is nearer.
    let networks = [(7.9, 8.7), (7.0, 7.0), (7.6, 7.9), (7.5, 8.1), (7.8, 8.5)];
    let found = listed(&plan, &networks, |i| i != 1);
    assert_eq!((winner(&found), found.finalists.len()), (Some(2), 3));
    // Replacements that are all over the budget leave room for the one that is predicted to be the fastest.
    let networks = [(7.9, 8.7), (7.2, 8.1), (7.05, 8.05), (6.9, 8.04), (6.8, 8.03), (3.0, 3.3)];
    let found = listed(&plan, &networks, |_| true);
    assert_eq!((winner(&found), found.finalists.len()), (Some(5), 4));
    // Where nothing keeps it, what is told is the fastest that is worth a measurement: the others are far from the budget.
    let found = listed(&plan, &[(7.9, 8.9), (7.8, 8.8), (9.0, 7.0)], |_| true);
    assert_eq!((winner(&found), found.fastest().unwrap().dear.latency_ms), (None, 8.8));
}

#[test]
fn the_front_is_that_within_the_widest_limits() {
    // Predicted and measured latencies, the best scores first. Within 10 ms as predicted are 1 to 3, of which the last is over
    // it; with their margin of a half network 0 fits, which takes what is predicted: the margin is 1 again. The next network
    // makes it 0.8.
    let networks = [(20.0, 20.0), (10.0, 5.0), (9.9, 4.95), (9.8, 11.76), (5.0, 4.0)];
    let plan = Plan { budget: within(10.0), finalists: 3, ..PLAN };
    let found = listed(&plan, &networks, |_| true);
    let measured: Vec<u8> = found.finalists.iter().map(|f| f.path.choices()[0]).collect();
    assert_eq!((measured, found.margins.latency), (vec![1, 2, 3, 0, 4], 0.8));
    assert_eq!(found.front.last().unwrap().assessed.cost, 20.0);
}

#[test]
fn each_search_runs_no_more_networks_than_it_may() {
    const EVALUATIONS: usize = 5;
    // Evolution meets no network within the limits, random search some of the later ones; they take half of what is predicted,
    // with which all are within them.
    let plan = Plan { free: false, evaluations: EVALUATIONS, population: 4, ..PLAN };
    let (mut calls, mut run) = (0, std::collections::HashSet::new());
    let cheap = |path: &Path, margins: &Margins| {
        calls += 1;
        let is_within = margins.latency < 1.0 || calls > EVALUATIONS * nsga2::LOOKS + 40;
        let score = if is_within { sum(path) } else { f64::NAN };
        if is_within {
            run.insert(path.clone());
        }
        Ok::<_, Infallible>(Assessed { score, cost: 1.0 + sum(path), excess: if is_within { 0.0 } else { 0.5 } })
    };
    let dear = |paths: &[Path]| {
        let one = |path: &Path| Dear {
            score: sum(path),
            latency_ms: 0.5 * (1.0 + sum(path)),
            energy_mj: None,
            predicted_mj: None,
        };
        Ok(paths.iter().map(one).collect())
    };
    let mut shown = Vec::new();
    let progress = |done, _| shown.push(done);
    let Ok(found) = search(&chain(14), &plan, None, cheap, |_| true, dear, progress);
    assert!(found.margins.latency < CLOSE && !found.front.is_empty() && !found.random.is_empty());
    assert!(run.len() > EVALUATIONS && run.len() <= 2 * EVALUATIONS, "{}", run.len());
    assert_eq!(shown.iter().filter(|&&done| done == EVALUATIONS).count(), 2, "both that ran are shown: {shown:?}");
}
