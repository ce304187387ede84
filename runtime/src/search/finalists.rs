//! A search in two steps: what is cheap filters, what is dear decides.
//!
//! NSGA-II (or, in a small space or a list, a look at every network) finds the front of a cheap score and of the predicted
//! latency within the limits. A few networks of it are the finalists: their dear score and their latency are measured, and
//! the winner is the best of those that keep the limits *as measured*; those that do not are replaced. How far off the
//! predictions of those were is a margin on all others. Random search gets as many dear evaluations, within the same
//! limits, measured together with the finalists'.

use nasbn_models::{Path, Supernet, canonical::CanonicalTable};
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
/// Predictions that are too high count as right down to this share: wider limits would let in little.
const CLOSE: f64 = 0.9;
/// Excess, a share of the limit, up to which networks may keep it after all: beyond that no prediction is expected to err.
const NEAR: f64 = 0.1;
/// Networks that are looked at between two reports of progress.
const REPORTED: usize = 1 << 10;

/// Limits on what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Most latency, milliseconds.
    pub latency_ms: f64,
    /// Most energy of one run, millijoules.
    pub energy_mj: Option<f64>,
}

/// How many times as much as predicted networks take, as far as those that were measured tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Margins {
    /// Of the latency.
    pub latency: f64,
    /// Of the energy of one run.
    pub energy: f64,
}

impl Margins {
    /// What is predicted is what is measured.
    pub const NONE: Self = Self { latency: 1.0, energy: 1.0 };

    /// Medians of measured over predicted; 1 where none is known, and where they are less than 1 by little.
    fn of(finalists: &[Finalist]) -> Self {
        let latency = |f: &Finalist| Some(f.dear.latency_ms / f.predicted_ms);
        let energy = |f: &Finalist| Some(f.dear.energy_mj? / f.dear.predicted_mj?);
        let margin = |of: &dyn Fn(&Finalist) -> Option<f64>| {
            let mut ratios: Vec<f64> = finalists.iter().filter_map(of).filter(|ratio| ratio.is_finite()).collect();
            ratios.sort_by(f64::total_cmp);
            let median = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
            if (CLOSE..1.0).contains(&median) { 1.0 } else { median }
        };
        Self { latency: margin(&latency), energy: margin(&energy) }
    }

    /// Whether limits with these margins let in networks that those with others kept out.
    fn are_wider_than(&self, other: &Self) -> bool {
        self.latency < CLOSE * other.latency || self.energy < CLOSE * other.energy
    }

    /// Whether limits with these margins keep out no network that those with others let in.
    fn let_in_all_of(&self, other: &Self) -> bool {
        self.latency <= other.latency && self.energy <= other.energy
    }
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
    /// What was predicted of it, where anything was.
    pub predicted_mj: Option<f64>,
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
    /// Whether it keeps the budget as measured; an energy that was not measured keeps no limit.
    pub fn keeps(&self, budget: &Budget) -> bool {
        self.dear.latency_ms <= budget.latency_ms && self.keeps_energy(budget)
    }

    /// Whether it keeps the limit on the energy, if there is one.
    pub fn keeps_energy(&self, budget: &Budget) -> bool {
        budget.energy_mj.is_none_or(|limit| self.dear.energy_mj.is_some_and(|energy| energy <= limit))
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
    /// Front of the first step: by cheap score and predicted latency, within the widest limits that were looked at.
    pub front: Vec<Entry>,
    /// Networks of the first step that were measured, the first ones first.
    pub finalists: Vec<Finalist>,
    /// Networks of random search that were measured: as many, unless it met fewer within the limits.
    pub random: Vec<Finalist>,
    /// The best that keeps the budget; none if none does.
    pub winner: Option<Finalist>,
    /// The network that is nearest to the limits by prediction, if none was within them at first.
    pub nearest: Option<Entry>,
    /// How far off predictions were.
    pub margins: Margins,
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

/// What the first step has seen.
struct Look {
    method: Method,
    looked_at: usize,
    archive: Archive,
    /// Networks within the limits that random search proposes, the first ones first.
    random: Vec<Entry>,
    /// What random search has met, where its looks are dear.
    drawn: Option<Archive>,
}

/// What the first step looks at.
struct First<'a, K> {
    supernet: &'a Supernet,
    plan: &'a Plan,
    /// Whether a path keeps all limits on what is not measured.
    keeps: &'a K,
    among: Option<&'a [Path]>,
    /// Most networks that are measured.
    most: usize,
}

impl<K: Fn(&Path) -> bool> First<'_, K> {
    fn look<E>(
        &self,
        mut cheap: impl FnMut(&Path) -> Result<Assessed, E>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Look, E> {
        let Self { supernet, plan, most, .. } = *self;
        if let Some(paths) = self.among {
            return self.look_at_all(Method::List, paths.iter().cloned(), paths.len(), cheap, progress);
        }
        if plan.free && supernet.path_count() <= ENUMERABLE {
            let count = usize::try_from(CanonicalTable::new(supernet).count(supernet)).unwrap_or(usize::MAX);
            return self.look_at_all(Method::Exhaustive, networks(supernet), count, cheap, progress);
        }
        let archive = self.evolve(&mut cheap, progress)?;
        // Where every look is dear random search has as many, and proposes the best of them.
        let drawn = match plan.free {
            true => None,
            false => Some(self.draw(&mut cheap, progress)?),
        };
        let random = match &drawn {
            Some(drawn) => self.best_of(drawn),
            None => self::drawn(supernet, plan, most, &mut cheap)?,
        };
        Ok(Look { method: Method::Evolution, looked_at: archive.entries().len(), archive, random, drawn })
    }

    /// A look at every one of different networks.
    fn look_at_all<E>(
        &self,
        method: Method,
        paths: impl Iterator<Item = Path>,
        count: usize,
        mut cheap: impl FnMut(&Path) -> Result<Assessed, E>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Look, E> {
        let mut sieve = Sieve::new(self.most, self.keeps, self.plan.seed, RANDOM_STREAM);
        for (done, path) in paths.enumerate() {
            if done % REPORTED == 0 {
                progress(done, count);
            }
            let assessed = cheap(&path)?;
            sieve.push(Entry { path, assessed });
        }
        let Sieved { archive, sample, count } = sieve.end();
        Ok(Look { method, looked_at: count, archive, random: sample, drawn: None })
    }

    /// Another look within other limits; where looks are dear, at what is known of a search that has run any network.
    fn look_again<E>(
        &self,
        last: &Look,
        mut cheap: impl FnMut(&Path) -> Result<Assessed, E>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Look, E> {
        let Some(drawn) = &last.drawn else { return self.look(cheap, &mut |_, _| {}) };
        let archive = match last.archive.evaluations() {
            0 => self.evolve(&mut cheap, progress)?,
            _ => judged_again(&last.archive, &mut cheap)?,
        };
        let drawn = match drawn.evaluations() {
            0 => self.draw(&mut cheap, progress)?,
            _ => judged_again(drawn, &mut cheap)?,
        };
        let (looked_at, random) = (archive.entries().len(), self.best_of(&drawn));
        Ok(Look { method: last.method, looked_at, archive, random, drawn: Some(drawn) })
    }

    /// Evolution; every network of a batch is assessed here, so that no count can be wrong.
    fn evolve<E>(
        &self,
        cheap: &mut impl FnMut(&Path) -> Result<Assessed, E>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Archive, E> {
        let all_of = |paths: &[Path]| paths.iter().map(&mut *cheap).collect();
        evolved(nsga2::nsga2(self.supernet, &self.options(), all_of, progress))
    }

    /// Random search by as many looks.
    fn draw<E>(
        &self,
        cheap: &mut impl FnMut(&Path) -> Result<Assessed, E>,
        progress: &mut impl FnMut(usize, usize),
    ) -> Result<Archive, E> {
        let all_of = |paths: &[Path]| paths.iter().map(&mut *cheap).collect();
        evolved(nsga2::random_search(self.supernet, &self.options(), all_of, progress))
    }

    fn options(&self) -> Nsga2Options {
        let Plan { population, evaluations, mutation, seed, .. } = *self.plan;
        Nsga2Options { population, evaluations, mutation, seed }
    }

    fn best_of(&self, archive: &Archive) -> Vec<Entry> {
        choose(archive, f64::INFINITY, self.most).into_iter().cloned().collect()
    }
}

/// Searches in two steps, among all networks or (`among`) the given canonical paths.
///
/// `cheap` gives a canonical path's cheap score, predicted latency (the cost, milliseconds) and greatest excess over a limit,
/// as a share of that, if it takes so many times as much as predicted; `keeps` says whether a path keeps all limits on what is not measured;
/// `dear` measures paths, in order. `progress` hears how many networks the first step has looked at, and of how many.
///
/// # Errors
/// Those of `cheap` and `dear`.
pub fn search<E>(
    supernet: &Supernet,
    plan: &Plan,
    among: Option<&[Path]>,
    mut cheap: impl FnMut(&Path, &Margins) -> Result<Assessed, E>,
    keeps: impl Fn(&Path) -> bool,
    mut dear: impl FnMut(&[Path]) -> Result<Vec<Dear>, E>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Found, E> {
    let most = plan.finalists.saturating_mul(1 + plan.replacements);
    let first = First { supernet, plan, keeps: &keeps, among, most };
    let (mut margins, mut least) = (Margins::NONE, Margins::NONE);
    let mut look = first.look(|path| cheap(path, &margins), &mut progress)?;
    let front_of = |look: &Look| look.archive.front().into_iter().cloned().collect();
    let (method, mut looked_at, mut front): (_, _, Vec<Entry>) = (look.method, look.looked_at, front_of(&look));
    let found_by = if method == Method::Evolution { FoundBy::Evolution } else { FoundBy::Exhaustive };
    let (mut finalists, mut random): (Vec<Finalist>, Vec<Finalist>) = (Vec::new(), Vec::new());
    let (mut nearest, mut reached) = (None, false);
    loop {
        let within = finalists.iter().filter(|finalist| finalist.keeps(&plan.budget)).count();
        let wanted = plan.finalists.saturating_sub(within);
        let room = most - finalists.len();
        // Networks that took longer than predicted foretell that others do; and that more fit if they were faster.
        let measured_margins = Margins::of(&finalists);
        let wider = measured_margins.are_wider_than(&margins);
        if room > 0 && measured_margins != margins && (wider || wanted > 0) {
            margins = measured_margins;
            look = first.look_again(&look, |path| cheap(path, &margins), &mut progress)?;
            if margins.let_in_all_of(&least) {
                (looked_at, front, least) = (look.looked_at, front_of(&look), margins);
            }
        }
        let is_new = |entry: &&Entry| finalists.iter().all(|finalist| finalist.path != entry.path);
        let chosen = |count: usize| choose(&look.archive, f64::INFINITY, count).into_iter().filter(is_new);
        // What would have been chosen first, had it not been kept out.
        let mut group: Vec<Entry> =
            if wider { chosen(plan.finalists).take(room).cloned().collect() } else { Vec::new() };
        if group.is_empty() {
            group = chosen(finalists.len() + most).take(wanted.min(room)).cloned().collect();
        }
        if group.is_empty() && finalists.is_empty() {
            nearest = look.archive.nearest().cloned();
        }
        // Predictions err: as long as none keeps the budget, what is nearest to the limits may do so after all. It is measured
        // whatever is predicted of it, at the latest as the last, so that it is known what is the least; others if it is close.
        let none_keeps = !finalists.iter().chain(&random).any(|finalist| finalist.keeps(&plan.budget));
        let is_last = !finalists.is_empty() && group.len() == room;
        if none_keeps && room > 0 && (group.is_empty() || is_last) {
            let unmeasured = look.archive.nearest_of(|entry| is_new(&entry) && keeps(&entry.path));
            let unmeasured = unmeasured.filter(|entry| !reached || entry.assessed.excess <= NEAR);
            if let Some(entry) = unmeasured.filter(|entry| !group.contains(entry)) {
                group.truncate(room - 1);
                group.push(entry.clone());
                reached = true;
            }
        }
        if group.is_empty() {
            break;
        }
        // Both searches' networks are measured together, so that a drift of the machine is no advantage.
        let is_new = |entry: &&Entry| random.iter().all(|finalist| finalist.path != entry.path);
        let behind = (finalists.len() + group.len()).saturating_sub(random.len());
        let peers: Vec<&Entry> = look.random.iter().filter(is_new).take(behind).collect();
        let mut measured = measured(&group.iter().chain(peers).collect::<Vec<_>>(), &mut dear)?;
        let of_random = measured.split_off(group.len().min(measured.len()));
        if measured.is_empty() {
            break;
        }
        finalists.extend(measured.into_iter().map(|(entry, dear)| finalist(entry, dear, found_by)));
        random.extend(of_random.into_iter().map(|(entry, dear)| finalist(entry, dear, FoundBy::RandomSearch)));
    }
    let winner = best(finalists.iter().chain(&random), &plan.budget).cloned();
    let margins = Margins::of(&finalists);
    Ok(Found { method, looked_at, front, finalists, random, winner, nearest, margins })
}

/// The same networks within other limits.
fn judged_again<E>(archive: &Archive, cheap: &mut impl FnMut(&Path) -> Result<Assessed, E>) -> Result<Archive, E> {
    let of = |entry: &Entry| {
        let score = entry.assessed.score;
        // What was passed over stays so: its score would be one more look.
        let assessed = if score.is_nan() { entry.assessed } else { Assessed { score, ..cheap(&entry.path)? } };
        Ok(Entry { path: entry.path.clone(), assessed })
    };
    Ok(Archive::new(archive.entries().iter().map(of).collect::<Result<_, E>>()?))
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
mod tests;
