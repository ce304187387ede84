//! Which networks of an archive are worth a dear look.

use std::cmp::Ordering;

use super::{
    archive::{Archive, Entry, front_of},
    pareto::{Point, number_order, share},
};

/// One network in so many is taken for the spread along the front.
pub const SPREAD: usize = 4;

/// At most `count` networks within the limits and within `budget` (in the units of the cost, itself allowed), to be
/// measured or trained: the best scores that are left, and every [fourth](SPREAD) the point of the Pareto front farthest
/// from all taken before, so that there are cheap ones to fall back on. The first is the best score; once the front is
/// used up, all are.
///
/// Of equal scores the cheaper comes first, then the first path; of equally far points the cheaper. A longer list
/// begins with the shorter one, so that networks that turn out over the budget can be replaced by those that follow.
pub fn choose(archive: &Archive, budget: f64, count: usize) -> Vec<&Entry> {
    let mut ranked: Vec<&Entry> = archive.feasible().filter(|entry| entry.assessed.cost <= budget).collect();
    let mut front = front_of(ranked.clone());
    ranked.sort_by(|a, b| by_score(a, b));
    let (Some(&low), Some(&high)) = (front.first(), front.last()) else { return Vec::new() };
    let (low, high) = (low.point(), high.point());
    let mut chosen: Vec<&Entry> = Vec::new();
    let mut ranked = ranked.into_iter();
    while chosen.len() < count {
        front.retain(|entry| !chosen.contains(entry));
        let spread = chosen.len() % SPREAD == SPREAD - 1;
        let far = |entry: &&Entry| remoteness(entry.point(), &chosen, low, high);
        // The first of the farthest is the cheapest: `max_by` gives the last, hence the reversal.
        let farthest = front.iter().rev().copied().max_by(|a, b| far(a).total_cmp(&far(b)));
        let best = || ranked.by_ref().find(|entry| !chosen.contains(entry));
        let Some(next) = farthest.filter(|_| spread).or_else(best) else { break };
        chosen.push(next);
    }
    chosen
}

/// Higher scores first, then cheaper ones, then by path.
fn by_score(a: &Entry, b: &Entry) -> Ordering {
    let (a, b) = ((a.point(), &a.path), (b.point(), &b.path));
    let by_point = number_order(b.0.score, a.0.score).then_with(|| number_order(a.0.cost, b.0.cost));
    by_point.then_with(|| a.1.cmp(b.1))
}

/// Square of the distance to the nearest of `chosen`, in shares of the front's extent from `low` to `high`.
fn remoteness(point: Point, chosen: &[&Entry], low: Point, high: Point) -> f64 {
    let gap = |a: f64, b: f64, most, least| share(a.max(b), a.min(b), most, least).powi(2);
    let distance = |other: Point| {
        gap(point.score, other.score, high.score, low.score) + gap(point.cost, other.cost, high.cost, low.cost)
    };
    chosen.iter().map(|entry| distance(entry.point())).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nasbn_models::Path;

    use super::*;
    use crate::search::archive::Assessed;

    fn archive(networks: &[(u8, f64, f64, f64)]) -> Archive {
        let entry = |&(name, score, cost, excess): &(u8, f64, f64, f64)| Entry {
            path: Path::new(&[name]).unwrap(),
            assessed: Assessed { score, cost, excess },
        };
        Archive::new(networks.iter().map(entry).collect())
    }

    fn chosen(archive: &Archive, budget: f64, count: usize) -> Vec<u8> {
        choose(archive, budget, count).iter().map(|entry| entry.path.choices()[0]).collect()
    }

    /// Front within a budget of 10: 0, 1, 2, 3. Off it: 4 nearly as good as the best, 5 poor.
    const NETWORKS: [(u8, f64, f64, f64); 10] = [
        (8, f64::NAN, 1.0, 0.0),
        (7, 99.0, 5.0, 0.5),
        (6, 50.0, 10.5, 0.0),
        (5, 1.0, 9.0, 0.0),
        (4, 39.0, 9.9, 0.0),
        (3, 40.0, 10.0, 0.0),
        (2, 30.0, 5.5, 0.0),
        (1, 20.0, 2.5, 0.0),
        (0, 0.0, 2.0, 0.0),
        (9, f64::INFINITY, f64::NAN, 0.0),
    ];

    #[test]
    fn best_scores_and_a_spread_take_turns() {
        let archive = archive(&NETWORKS);
        // The best three, then of 0 and 1 the one that is farther from them, then the best that are left.
        let all = chosen(&archive, 10.0, 9);
        assert_eq!(all, [3, 4, 2, 0, 1, 5]);
        for count in 0..7 {
            assert_eq!(chosen(&archive, 10.0, count), all[..count]);
        }
        assert_eq!(chosen(&archive, f64::INFINITY, 1), [6]);
        for budget in [1.9, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(chosen(&archive, budget, 3).is_empty());
        }
    }

    #[test]
    fn the_order_of_the_archive_does_not_matter() {
        let mut reversed = NETWORKS;
        reversed.reverse();
        assert_eq!(choose(&archive(&NETWORKS), 10.0, 5), choose(&archive(&reversed), 10.0, 5));
        let equal = [(2, 1.0, 3.0, 0.0), (1, 1.0, 3.0, 0.0), (3, 1.0, 3.0, 0.0), (0, 1.0, 4.0, 0.0)];
        assert_eq!(chosen(&archive(&equal), 9.0, 9), [1, 2, 3, 0]);
        assert!(chosen(&archive(&[]), 9.0, 9).is_empty());
    }
}
