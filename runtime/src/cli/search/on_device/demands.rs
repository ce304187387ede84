//! What networks take of what is limited, as far as is known before they are measured.

use nasbn_models::{Path, Supernet, canonical::CanonicalTable, cost::CostTable};

use crate::{
    latency::LatencyTable,
    report::BudgetLimits,
    search::{ENUMERABLE, enumerate, finalists::Margins},
};

/// Where that is known from.
#[derive(Clone, Copy)]
pub struct Demands<'a> {
    pub limits: &'a BudgetLimits,
    pub costs: &'a CostTable,
    pub table: &'a LatencyTable,
}

/// What can be said of limits before anything is measured.
#[derive(Debug, Default)]
pub struct Judged {
    /// The network that is predicted to be the fastest of those within all limits but that on the latency, and its latency in
    /// milliseconds. Where `unjudged` names limits, these are not among them.
    pub fastest: Option<(Path, f64)>,
    /// Where no network is within all limits but that on the latency: the one that is nearest to it, and what it is over.
    pub nearest: Option<(Path, Vec<String>)>,
    /// Options whose limits were not looked at, as there are too many networks to list.
    pub unjudged: Vec<&'static str>,
}

/// What a network takes of one thing, and the limit on it.
pub struct Demand {
    /// Option that sets the limit.
    pub option: &'static str,
    unit: &'static str,
    value: f64,
    limit: Option<f64>,
    kind: Kind,
}

/// What is measured in the end, of which this is the prediction; and what is known as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Latency,
    Energy,
    Known,
}

impl Demands<'_> {
    /// Everything that is limited, of a canonical path.
    pub fn of(&self, path: &Path) -> [Demand; 5] {
        let (cost, limits) = (self.costs.cost(path), self.limits);
        let of = |option, unit, value, limit| Demand { option, unit, value, limit, kind: Kind::Known };
        let whole =
            |option, unit, value: u64, limit: Option<u64>| of(option, unit, value as f64, limit.map(|l| l as f64));
        let latency = of("--budget", "ms predicted", self.table.latency(path), Some(limits.latency_ms));
        // A table without energies has no limit on them: see what is checked before a search.
        let energy = self.table.energy(path).unwrap_or(0.0);
        [
            Demand { kind: Kind::Latency, ..latency },
            Demand { kind: Kind::Energy, ..of("--energy-budget", "mJ predicted", energy, limits.energy_mj) },
            whole("--max-macs", "MACs", cost.macs, limits.macs),
            whole("--max-params", "parameters", cost.params, limits.params),
            whole("--max-memory", "bytes", cost.peak_activation_bytes, limits.memory_bytes),
        ]
    }

    /// The greatest excess of a canonical path that takes so many times as much latency and energy as predicted.
    pub fn excess(&self, path: &Path, margins: &Margins) -> f64 {
        self.of(path).iter().map(|demand| demand.excess(margins)).fold(0.0, f64::max)
    }

    /// Whether a canonical path keeps all limits on what is not measured in the end.
    pub fn keeps_known(&self, path: &Path) -> bool {
        self.of(path).iter().all(|demand| demand.kind != Kind::Known || demand.over().is_none())
    }

    /// Whether anything but the latency is limited.
    pub fn has_others(&self) -> bool {
        let BudgetLimits { latency_ms: _, energy_mj, macs, params, memory_bytes } = self.limits;
        energy_mj.is_some() || macs.is_some() || params.is_some() || memory_bytes.is_some()
    }

    /// What a network, a canonical path, is over, the latency aside: the greatest excess.
    fn excess_besides_latency(&self, path: &Path) -> f64 {
        self.excess(path, &Margins { latency: 0.0, ..Margins::NONE })
    }

    /// What can be said of the limits of a search among `among` (canonical paths), or among all networks of the space.
    pub fn judged(&self, supernet: &Supernet, among: Option<&[Path]>) -> Judged {
        if let Some(among) = among {
            return self.judged_of(&mut among.iter().cloned());
        }
        // No network is faster: where it is within the other limits, there is nothing else to look at.
        let lowest = self.table.correction.table.lowest().filter(|path| supernet.is_connected(path));
        let fastest = lowest.map(|path| CanonicalTable::new(supernet).of(&path));
        let fastest = fastest.map(|path| (self.table.latency(&path), path)).map(|(ms, path)| (path, ms));
        if fastest.as_ref().is_some_and(|(path, _)| self.excess_besides_latency(path) == 0.0) {
            return Judged { fastest, ..Judged::default() };
        }
        if supernet.path_count() <= ENUMERABLE {
            return self.judged_of(&mut enumerate::networks(supernet));
        }
        let unjudged = [
            // A network that may not be the fastest says nothing of it.
            ("--budget", fastest.is_none()),
            ("--energy-budget", self.limits.energy_mj.is_some()),
            ("--max-macs", self.limits.macs.is_some()),
            ("--max-params", self.limits.params.is_some()),
            ("--max-memory", self.limits.memory_bytes.is_some()),
        ];
        let unjudged = unjudged.into_iter().filter_map(|(option, is_unjudged)| is_unjudged.then_some(option)).collect();
        Judged { fastest, nearest: None, unjudged }
    }

    /// What can be said of the limits, given all networks.
    fn judged_of(&self, networks: &mut dyn Iterator<Item = Path>) -> Judged {
        let known = networks.map(|path| (self.excess_besides_latency(&path), self.table.latency(&path), path));
        let nearest = known.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        match nearest {
            None => Judged::default(),
            Some((0.0, ms, path)) => Judged { fastest: Some((path, ms)), ..Judged::default() },
            Some((_, _, path)) => {
                let besides = |demand: &&Demand| demand.kind != Kind::Latency;
                let over = self.of(&path).iter().filter(besides).filter_map(Demand::over).collect();
                Judged { nearest: Some((path, over)), ..Judged::default() }
            }
        }
    }
}

impl Demand {
    /// By how much it is over its limit, as a share of that, if so many times as much is taken as predicted; 0 within it.
    fn excess(&self, margins: &Margins) -> f64 {
        let value = match self.kind {
            Kind::Latency => margins.latency * self.value,
            Kind::Energy => margins.energy * self.value,
            Kind::Known => self.value,
        };
        self.limit.map_or(0.0, |limit| ((value - limit) / limit).max(0.0))
    }

    /// What is over its limit, in words; none within it.
    pub fn over(&self) -> Option<String> {
        let limit = self.limit.filter(|_| self.excess(&Margins::NONE) > 0.0)?;
        // Counts are whole.
        let value = if self.kind == Kind::Known { self.value.to_string() } else { significant(self.value) };
        Some(format!("{}: {value} {}, {limit} at most", self.option, self.unit))
    }
}

/// A number with no more digits than a prediction is good for.
fn significant(value: f64) -> String {
    const DIGITS: f64 = 4.0;
    let decimals = (DIGITS - 1.0 - value.abs().log10().floor()).clamp(0.0, 12.0);
    format!("{value:.0$}", decimals as usize)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{latency::test_table, testing::chain};

    const NO_LIMITS: BudgetLimits =
        BudgetLimits { latency_ms: 1.0, energy_mj: None, macs: None, params: None, memory_bytes: None };

    /// What is said of a chain in which the first candidates, identities, are the fastest and have the fewest MACs.
    fn judged(layers: u16, limits: &BudgetLimits, among: Option<&[Path]>) -> Judged {
        let supernet = chain(layers);
        let (costs, table) = (CostTable::new(&supernet), test_table(&supernet));
        Demands { limits, costs: &costs, table: &table }.judged(&supernet, among)
    }

    #[test]
    fn limits_are_judged_together_where_networks_can_be_listed() {
        let all = judged(3, &NO_LIMITS, None);
        assert_eq!(all.fastest, Some((Path::new(&[0, 0, 0]).unwrap(), 1.0)));
        let impossible = judged(3, &BudgetLimits { macs: Some(1), ..NO_LIMITS }, None);
        let (path, over) = impossible.nearest.unwrap();
        assert_eq!((path, impossible.fastest, impossible.unjudged), (Path::new(&[0, 0, 0]).unwrap(), None, vec![]));
        assert!(over.len() == 1 && over[0].starts_with("--max-macs: ") && over[0].ends_with("1 at most"), "{over:?}");
        // Among given networks the fastest within the limits is not the fastest of all.
        let paths = [[0, 0, 2], [1, 1, 1]].map(|path| Path::new(&path).unwrap());
        let [fast, slow] = paths.each_ref().map(|path| CostTable::new(&chain(3)).cost(path));
        assert!(fast.params > 0 && slow.params > 0);
        let macs = Some(fast.macs.min(slow.macs));
        let expected = if fast.macs < slow.macs { &paths[0] } else { &paths[1] };
        let few = judged(3, &BudgetLimits { macs, ..NO_LIMITS }, Some(&paths));
        assert_eq!(few.fastest.map(|(path, _)| path).as_ref(), Some(expected));
        assert!(judged(3, &NO_LIMITS, Some(&[])).fastest.is_none(), "of no networks nothing is known");
    }

    #[test]
    fn predictions_are_told_with_few_digits() {
        for (value, text) in [(1.0 / 3.0, "0.3333"), (2e4 / 3.0, "6667"), (0.001_234_56, "0.001235")] {
            assert_eq!(significant(value), text);
        }
        let (supernet, path) = (chain(3), Path::new(&[0, 0, 0]).unwrap());
        let (costs, table) = (CostTable::new(&supernet), test_table(&supernet));
        let limits = BudgetLimits { latency_ms: 0.7, ..NO_LIMITS };
        let demands = Demands { limits: &limits, costs: &costs, table: &table };
        let over: Vec<String> = demands.of(&path).iter().filter_map(Demand::over).collect();
        assert_eq!(over, ["--budget: 1.000 ms predicted, 0.7 at most"]);
        // If it takes half of what is predicted it is within the limit; and what is predicted is not known.
        let half = Margins { latency: 0.5, energy: 1.0 };
        assert!(demands.excess(&path, &Margins::NONE) > 0.0 && demands.excess(&path, &half) == 0.0);
        assert!(demands.keeps_known(&path));
    }

    #[test]
    fn what_was_not_looked_at_in_a_large_space_is_named() {
        let large = 24;
        assert!(chain(large).path_count() > ENUMERABLE);
        let limits = BudgetLimits { macs: Some(1), memory_bytes: Some(u64::MAX), ..NO_LIMITS };
        let found = judged(large, &limits, None);
        assert_eq!(found.unjudged, ["--max-macs", "--max-memory"]);
        assert!(found.nearest.is_none() && found.fastest.is_some_and(|(_, ms)| ms == 1.0));
        // The fastest network of all within all limits: the answer, without a list.
        let found = judged(large, &BudgetLimits { macs: Some(u64::MAX), ..NO_LIMITS }, None);
        assert!(found.unjudged.is_empty() && found.fastest.is_some_and(|(_, ms)| ms == 1.0));
    }
}
