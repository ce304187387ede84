//! How well scores rank networks whose truth is known.
//!
//! [`join`] brings a table of scores and one of truth together; [`evaluate`] says how well a column ranks; [`picture`]
//! draws it. What each figure means is in `docs/evaluate.md`.

pub mod bootstrap;
pub mod direction;
pub mod groups;
pub mod join;
pub mod picture;
pub mod rank;
pub mod regret;

use serde::{Serialize, Serializer};

use self::{
    groups::{Group, MAC_BANDS, MIN_GROUP},
    join::{Column, MIN_NETWORKS, Population},
    rank::{Ranker, dense_ranks},
};

/// Numbers of networks that would be trained, for which regret is said.
pub const TOP: [usize; 4] = [1, 5, 10, 50];

/// Why a figure is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// All scores are equal: they rank nothing.
    #[error("constant score")]
    ConstantScore,
    /// All truths are equal: there is nothing to rank.
    #[error("constant truth")]
    ConstantTruth,
    /// Fewer than three networks have the score.
    #[error("fewer than 3 networks")]
    TooFew,
    /// The scores lack what networks are grouped by, for one network or more.
    #[error("not in the scores")]
    NoGroups,
    /// No group is large enough.
    #[error("no group of 10 networks")]
    SmallGroups,
}

impl Serialize for Undefined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A statistic and its bootstrap interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The statistic.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval; null without resamples, or where most leave the statistic undefined.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Why there is no value.
    pub undefined: Option<Undefined>,
}

impl Estimate {
    fn new(value: Result<f64, Undefined>, replicates: &[Option<f64>]) -> Self {
        let interval = value.ok().and_then(|_| bootstrap::percentile_interval(replicates));
        Self {
            value: value.ok(),
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            undefined: value.err(),
        }
    }
}

/// Kendall's tau-b among networks of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupTau {
    /// Least value of what was grouped by.
    pub min: f64,
    /// Greatest value of what was grouped by.
    pub max: f64,
    /// Networks of the group that have the score.
    pub networks: usize,
    /// Kendall's tau-b.
    pub tau: Option<f64>,
    /// Why there is none.
    pub undefined: Option<Undefined>,
    /// Whether the group is part of the mean.
    pub counted: bool,
}

/// Kendall's tau-b within groups.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Within {
    /// Mean over the groups that count, all with equal weight.
    #[serde(flatten)]
    pub mean: Estimate,
    /// The same mean, groups weighted by their number of pairs.
    pub pair_weighted: Option<f64>,
    /// The groups, in order.
    pub groups: Vec<GroupTau>,
}

/// The truth lost by training the `k` networks ranked highest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Regret {
    /// Networks trained.
    pub k: usize,
    /// In units of the truth; null if there are no more than `k` networks.
    pub regret: Option<f64>,
}

/// How well a column ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the column.
    pub column: String,
    /// Whether lower scores count as better, which decides what the top is; the sign of correlations is as it is.
    pub lower_is_better: bool,
    /// Networks with a finite score.
    pub networks: usize,
    /// Networks without one.
    pub left_out: usize,
    /// Kendall's tau-b.
    pub kendall_tau: Estimate,
    /// Spearman's rho.
    pub spearman: Estimate,
    /// Kendall's tau-b within deciles of multiply-accumulates.
    pub kendall_within_macs: Within,
    /// Kendall's tau-b within equal depth.
    pub kendall_within_depth: Within,
    /// Regret by number of networks trained.
    pub top_k_regret: Vec<Regret>,
}

/// How [`evaluate`] goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the resamples.
    pub seed: u64,
    /// Number of resamples; 0 for no intervals.
    pub bootstrap: u32,
    /// Numbers of networks for the regret.
    pub top: Vec<usize>,
    /// Columns, the truth's among them, that are better when lower, beside those known as such.
    pub lower_is_better: Vec<String>,
}

impl Options {
    /// Whether lower values of a column count as better.
    pub fn lower(&self, column: &str) -> bool {
        direction::lower_is_better(column) || self.lower_is_better.iter().any(|name| name == column)
    }
}

/// How well a column of the population ranks the truth, whose column is named `truth_column`.
pub fn evaluate(population: &Population, column: &Column, truth_column: &str, options: &Options) -> Report {
    let sample = Sample::new(population, column);
    let mut ranker = Ranker::default();
    let groups = [
        population.macs.as_ref().map(|macs| groups::by_quantile(macs, MAC_BANDS)),
        population.depth.as_ref().map(|depth| groups::by_value(depth)),
    ];
    let [macs, depth] = groups.map(|groups| groups.map(|groups| Grouping::new(&sample, &groups, &mut ranker)));
    let (mut tau, mut rho, mut in_macs, mut in_depth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut drawn = Vec::new();
    for replicate in 0..u64::from(options.bootstrap) {
        bootstrap::resample(options.seed, replicate, sample.place.len(), &mut drawn);
        let present = || drawn.iter().filter_map(|&i| sample.place[i as usize]);
        tau.push(ranker.kendall(present().map(|i| sample.ranks[i])));
        rho.push(ranker.spearman(present().map(|i| sample.ranks[i])));
        for (grouping, replicates) in [(&macs, &mut in_macs), (&depth, &mut in_depth)] {
            if let Some(grouping) = grouping {
                replicates.push(grouping.resampled(&sample, present(), &mut ranker));
            }
        }
    }
    let all = || sample.ranks.iter().copied();
    let lower = options.lower(column.name.as_str());
    let turned = |values: &[f64], lower: bool| values.iter().map(|v| if lower { -v } else { *v }).collect::<Vec<_>>();
    let lower_truth = options.lower(truth_column);
    let (score, truth) = (turned(&sample.score, lower), turned(&sample.truth, lower_truth));
    let best = regret::greatest(&turned(&population.truth, lower_truth));
    Report {
        column: column.name.clone(),
        lower_is_better: lower,
        networks: sample.ranks.len(),
        left_out: sample.place.len() - sample.ranks.len(),
        kendall_tau: Estimate::new(
            sample.defined().and_then(|()| ranker.kendall(all()).ok_or(Undefined::TooFew)),
            &tau,
        ),
        spearman: Estimate::new(sample.defined().and_then(|()| ranker.spearman(all()).ok_or(Undefined::TooFew)), &rho),
        kendall_within_macs: within(&sample, macs, &in_macs),
        kendall_within_depth: within(&sample, depth, &in_depth),
        top_k_regret: options
            .top
            .iter()
            .map(|&k| Regret { k, regret: regret::top_k_regret(&score, &truth, best, k) })
            .collect(),
    }
}

/// The networks that have a score.
struct Sample {
    score: Vec<f64>,
    truth: Vec<f64>,
    /// Ranks of score and truth.
    ranks: Vec<(u32, u32)>,
    /// Where each network of the population is in the vectors above.
    place: Vec<Option<usize>>,
}

impl Sample {
    fn new(population: &Population, column: &Column) -> Self {
        let (mut score, mut truth) = (Vec::new(), Vec::new());
        let place = column.values.iter().zip(&population.truth).map(|(value, &of)| {
            let value = (*value)?;
            score.push(value);
            truth.push(of);
            Some(score.len() - 1)
        });
        let place = place.collect();
        let ranks = dense_ranks(&score).into_iter().zip(dense_ranks(&truth)).collect();
        Self { score, truth, ranks, place }
    }

    fn defined(&self) -> Result<(), Undefined> {
        if self.ranks.len() < MIN_NETWORKS {
            return Err(Undefined::TooFew);
        }
        constant(self.ranks.iter().copied()).map_or(Ok(()), Err)
    }
}

/// What does not vary among the ranks; the truth is looked at first.
fn constant(ranks: impl Iterator<Item = (u32, u32)> + Clone) -> Option<Undefined> {
    let equal = |of: fn((u32, u32)) -> u32| {
        let mut ranks = ranks.clone().map(of);
        let first = ranks.next();
        ranks.all(|rank| Some(rank) == first)
    };
    match (equal(|r| r.1), equal(|r| r.0)) {
        (true, _) => Some(Undefined::ConstantTruth),
        (false, true) => Some(Undefined::ConstantScore),
        (false, false) => None,
    }
}

/// Groups of a population, as far as networks have a score.
struct Grouping {
    taus: Vec<GroupTau>,
    /// Group of each network of the sample, if it counts.
    of: Vec<Option<usize>>,
}

impl Grouping {
    fn new(sample: &Sample, groups: &[Group], ranker: &mut Ranker) -> Self {
        let mut grouping = Self { taus: Vec::new(), of: vec![None; sample.ranks.len()] };
        for (index, group) in groups.iter().enumerate() {
            let members: Vec<usize> = group.members.iter().filter_map(|&i| sample.place[i]).collect();
            let ranks = members.iter().map(|&i| sample.ranks[i]);
            let undefined =
                if members.len() < MIN_NETWORKS { Some(Undefined::TooFew) } else { constant(ranks.clone()) };
            let counted = members.len() >= MIN_GROUP && undefined != Some(Undefined::ConstantTruth);
            if counted {
                members.iter().for_each(|&i| grouping.of[i] = Some(index));
            }
            grouping.taus.push(GroupTau {
                min: group.min,
                max: group.max,
                networks: members.len(),
                tau: if undefined.is_none() { ranker.kendall(ranks) } else { None },
                undefined,
                counted,
            });
        }
        grouping
    }

    /// The mean over groups among resampled networks. Who is in which group stays as it is.
    fn resampled(&self, sample: &Sample, drawn: impl Iterator<Item = usize>, ranker: &mut Ranker) -> Option<f64> {
        let mut groups: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.taus.len()];
        for i in drawn {
            if let Some(group) = self.of[i] {
                groups[group].push(sample.ranks[i]);
            }
        }
        // As in the mean of the sample: a constant score is worth 0, a constant truth no group.
        let varied =
            groups.iter().filter(|g| !g.is_empty() && constant(g.iter().copied()) != Some(Undefined::ConstantTruth));
        mean(varied.map(|group| (ranker.kendall(group.iter().copied()).unwrap_or(0.0), 1.0)))
    }
}

/// The weighted mean of (value, weight).
fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (sum, weight) = values.fold((0.0, 0.0), |(sum, all), (value, weight)| (sum + value * weight, all + weight));
    (weight > 0.0).then(|| sum / weight)
}

fn within(sample: &Sample, grouping: Option<Grouping>, replicates: &[Option<f64>]) -> Within {
    let undefined = |why| Within { mean: Estimate::new(Err(why), &[]), pair_weighted: None, groups: Vec::new() };
    let Some(grouping) = grouping else { return undefined(Undefined::NoGroups) };
    if let Err(why) = sample.defined() {
        return Within { groups: grouping.taus, ..undefined(why) };
    }
    let pairs = |n: usize| n as f64 * (n as f64 - 1.0) / 2.0;
    let counted = || grouping.taus.iter().filter(|g| g.counted);
    let plain = mean(counted().map(|g| (g.tau.unwrap_or(0.0), 1.0)));
    Within {
        mean: Estimate::new(plain.ok_or(Undefined::SmallGroups), replicates),
        pair_weighted: mean(counted().map(|g| (g.tau.unwrap_or(0.0), pairs(g.networks)))),
        groups: grouping.taus,
    }
}

#[cfg(test)]
mod tests;
