//! Each tool against a slow twin by its definition, on random lists with ties, voids and infinities.
#![allow(clippy::unwrap_used)]

use nasbn_models::sample::below;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::*;

/// Largest difference of areas that are added up in different orders, as a share.
const SUM_TOLERANCE: f64 = 1e-12;

fn point(score: f64, cost: f64) -> Point {
    Point { score, cost }
}

/// Lists of points on a coarse grid, so that ties abound; `wild` ones with a value that is no common number now and then.
fn lists(wild: bool) -> impl Iterator<Item = Vec<Point>> {
    const STRANGE: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    (0..400).map(move |case| {
        let (count, grid) = (below(&mut rng, 30), 1 + below(&mut rng, 12));
        let mut value = |by: f64| match below(&mut rng, 12) {
            0 if wild => STRANGE[below(&mut rng, 5) as usize],
            _ => f64::from(below(&mut rng, grid)) * by - f64::from(case % 3),
        };
        (0..count).map(|_| point(value(0.5), value(1.25))).collect()
    })
}

/// Peels off what nothing left dominates.
fn fronts_by_definition(points: &[Point]) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..points.len()).collect();
    let mut fronts = Vec::new();
    while !left.is_empty() {
        let free = |&i: &usize| !left.iter().any(|&j| points[j].dominates(&points[i]));
        let front: Vec<usize> = left.iter().copied().filter(free).collect();
        left.retain(|i| !front.contains(i));
        fronts.push(front);
    }
    fronts
}

#[test]
fn fronts_are_those_of_the_definition() {
    let mut voids = 0;
    for points in lists(true).chain(lists(false)) {
        let mut found = fronts(&points);
        for front in &found {
            assert!(front.windows(2).all(|pair| {
                let [a, b] = [points[pair[0]], points[pair[1]]];
                a.is_void() || (a.score >= b.score && a.cost >= b.cost && (a != b || pair[0] < pair[1]))
            }));
        }
        found.iter_mut().for_each(|front| front.sort_unstable());
        assert_eq!(found, fronts_by_definition(&points), "{points:?}");
        voids += points.iter().filter(|p| p.is_void()).count();
        let mut first = front(&points);
        assert!(first.windows(2).all(|w| points[w[0]].cost < points[w[1]].cost || points[w[0]] == points[w[1]]));
        first.sort_unstable();
        let numbers = |front: &Vec<usize>| front.iter().copied().filter(|&i| !points[i].is_void()).collect();
        assert_eq!(first, found.first().map_or(Vec::new(), numbers), "{points:?}");
    }
    assert!(voids > 100, "{voids}");
}

#[test]
fn domination_is_a_strict_order() {
    for points in lists(true).take(100) {
        for a in &points {
            assert!(!a.dominates(a));
            for b in points.iter().filter(|b| a.dominates(b)) {
                assert!(!b.dominates(a));
                assert!(points.iter().filter(|c| b.dominates(c)).all(|c| a.dominates(c)), "{a:?} {b:?}");
            }
        }
    }
}

/// Adds up the cells of the grid of all coordinates whose worst corner a point covers.
fn hypervolume_by_cells(points: &[Point], reference: Point) -> f64 {
    let axis = |of: fn(&Point) -> f64| {
        let mut values: Vec<f64> = points.iter().chain([&reference]).map(of).filter(|v| !v.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    };
    let (scores, costs) = (axis(|p| p.score), axis(|p| p.cost));
    let mut area = 0.0;
    for s in scores.windows(2).filter(|s| s[0] >= reference.score) {
        for c in costs.windows(2).filter(|c| c[1] <= reference.cost) {
            if points.iter().any(|p| p.score >= s[1] && p.cost <= c[0]) {
                area += (s[1] - s[0]) * (c[1] - c[0]);
            }
        }
    }
    area
}

#[test]
fn hypervolume_is_the_sum_of_the_cells_that_are_covered() {
    let mut covered = 0;
    for points in lists(false) {
        for reference in [point(0.0, 6.0), point(-5.0, 20.0), point(2.0, 3.0), point(100.0, -100.0)] {
            let (swept, cells) = (hypervolume(&points, reference), hypervolume_by_cells(&points, reference));
            assert!((swept - cells).abs() <= SUM_TOLERANCE * cells, "{swept} {cells} {points:?}");
            covered += usize::from(cells > 0.0);
        }
    }
    assert!(covered > 400, "{covered}");
    // By hand: 2 x 1, and 1 x 3 above it.
    assert_eq!(hypervolume(&[point(1.0, 8.0), point(4.0, 9.0), point(0.5, 9.5)], point(0.0, 10.0)), 2.0 + 3.0);
    for points in lists(true) {
        let area = hypervolume(&points, point(f64::NEG_INFINITY, f64::INFINITY));
        assert!(area >= 0.0, "{area} {points:?}");
        assert_eq!(hypervolume(&points, point(f64::NAN, 1.0)), 0.0);
    }
}

#[test]
fn crowding_is_the_extent_of_the_box_between_the_neighbours() {
    let front = [point(0.0, 0.0), point(10.0, 8.0), point(1.0, 2.0), point(4.0, 4.0)];
    let near = |distances: &[f64], right: &[f64]| {
        assert_eq!(distances.len(), right.len());
        assert!(distances.iter().zip(right).all(|(d, r)| d == r || (d - r).abs() < SUM_TOLERANCE), "{distances:?}");
    };
    near(&crowding(&front), &[f64::INFINITY, f64::INFINITY, 4.0 / 10.0 + 4.0 / 8.0, 9.0 / 10.0 + 6.0 / 8.0]);
    near(&crowding(&[]), &[]);
    // A constant objective adds nothing; where both are, nothing tells the points apart.
    near(&crowding(&[point(1.0, 0.0), point(1.0, 3.0), point(1.0, 4.0)]), &[f64::INFINITY, 1.0, f64::INFINITY]);
    near(&crowding(&[point(1.0, 2.0); 4]), &[0.0; 4]);
    near(&crowding(&[point(1.0, f64::NAN), point(f64::NAN, 2.0)]), &[0.0; 2]);
    let endless = [point(f64::NEG_INFINITY, 0.0), point(1.0, 1.0), point(2.0, 2.0), point(f64::INFINITY, 4.0)];
    near(&crowding(&endless), &[f64::INFINITY, 1.0 + 0.5, 1.0 + 0.75, f64::INFINITY]);
    for points in lists(true) {
        assert!(crowding(&points).iter().all(|d| *d >= 0.0), "{points:?}");
    }
}
