//! Two objectives at once: domination, fronts, crowding and hypervolume.
//!
//! The score is to be large, the cost to be small. A point dominates another if it is no worse in both and better in
//! one. A point of which a coordinate is not a number ([`Point::is_void`]) is dominated by every point that has both,
//! and dominates none. Infinities are numbers like others.

use std::cmp::Ordering;

use serde::Serialize;

/// A network by its two objectives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Larger is better.
    pub score: f64,
    /// Smaller is better: milliseconds, millijoules, multiply-accumulates.
    pub cost: f64,
}

impl Point {
    /// Whether a coordinate is not a number.
    pub fn is_void(&self) -> bool {
        self.score.is_nan() || self.cost.is_nan()
    }

    /// Whether `self` is no worse than `other` in both objectives and better in one.
    pub fn dominates(&self, other: &Self) -> bool {
        if self.is_void() || other.is_void() {
            return !self.is_void();
        }
        self.score >= other.score && self.cost <= other.cost && (self.score > other.score || self.cost < other.cost)
    }

    /// Higher scores first, then lower costs; voids last.
    fn by_score(&self, other: &Self) -> Ordering {
        let void = self.is_void().cmp(&other.is_void());
        void.then_with(|| number_order(other.score, self.score)).then_with(|| number_order(self.cost, other.cost))
    }
}

/// The order of numbers, in which zeros of both signs are equal.
pub(crate) fn number_order(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// The points by non-domination rank: the first front are those that no point dominates, the next those that only
/// points of the fronts before dominate, and so on; indices into `points`. Within a front scores fall and costs fall
/// with them, equal points in the order of the list; voids are a front of their own, the last.
///
/// What fast non-dominated sorting (Deb et al. 2002, section III-A) finds, for two objectives in n log n: in the order
/// of falling scores, the last point of a front dominates whatever the front dominates (Jensen 2003).
pub fn fronts(points: &[Point]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[a].by_score(&points[b]));
    let numbers = order.partition_point(|&i| !points[i].is_void());
    let voids = order.split_off(numbers);
    let mut fronts: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let rank = fronts.partition_point(|front| front.last().is_some_and(|&last| points[last].dominates(&points[i])));
        match fronts.get_mut(rank) {
            Some(front) => front.push(i),
            None => fronts.push(vec![i]),
        }
    }
    if !voids.is_empty() {
        fronts.push(voids);
    }
    fronts
}

/// The points that no point dominates, as indices into `points`: the cheapest first, equal ones (all are kept) in the
/// order of the list. Voids are never among them.
pub fn front(points: &[Point]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).filter(|&i| !points[i].is_void()).collect();
    order.sort_by(|&a, &b| {
        number_order(points[a].cost, points[b].cost).then_with(|| number_order(points[b].score, points[a].score))
    });
    let mut front: Vec<usize> = Vec::new();
    for i in order {
        if front.last().is_none_or(|&last| points[i].score > points[last].score || points[i] == points[last]) {
            front.push(i);
        }
    }
    front
}

/// Crowding distances of the points of one front, in its order (Deb et al. 2002, section III-B): the sum over the
/// objectives of the gap between the neighbours on both sides, as a share of the front's extent; infinite at the ends.
///
/// An objective in which all points are equal adds nothing, nor do voids have any distance.
pub fn crowding(front: &[Point]) -> Vec<f64> {
    let mut distances = vec![0.0; front.len()];
    let mut order: Vec<usize> = (0..front.len()).filter(|&i| !front[i].is_void()).collect();
    let objectives: [fn(&Point) -> f64; 2] = [|point| point.score, |point| point.cost];
    for of in objectives {
        order.sort_by(|&a, &b| number_order(of(&front[a]), of(&front[b])));
        let (Some(&first), Some(&last)) = (order.first(), order.last()) else { break };
        let (least, most) = (of(&front[first]), of(&front[last]));
        if least == most {
            continue;
        }
        distances[first] = f64::INFINITY;
        distances[last] = f64::INFINITY;
        for window in order.windows(3) {
            distances[window[1]] += share(of(&front[window[2]]), of(&front[window[0]]), most, least);
        }
    }
    distances
}

/// `upper - lower` as a share of `most - least`, between 0 and 1 also where a difference is infinite.
pub(crate) fn share(upper: f64, lower: f64, most: f64, least: f64) -> f64 {
    if upper == lower {
        return 0.0;
    }
    let share = (upper - lower) / (most - least);
    if share.is_nan() { 1.0 } else { share }
}

/// The area that the points dominate down to `reference` (the smallest score and the largest cost that count), in the
/// units of the score times those of the cost. Points that are not better than it in both add nothing.
///
/// Exact but for rounding: a sweep over costs (Zitzler and Thiele 1998 for two objectives).
pub fn hypervolume(points: &[Point], reference: Point) -> f64 {
    let (mut area, mut best) = (0.0, reference.score);
    for i in front(points) {
        let Point { score, cost } = points[i];
        if cost < reference.cost && score > best {
            area += (reference.cost - cost) * (score - best);
            best = score;
        }
    }
    area
}

#[cfg(test)]
mod tests;
