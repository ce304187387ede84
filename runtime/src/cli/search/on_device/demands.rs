//! What networks take of what is limited, as far as is known before they are measured.

use nasbn_models::{Path, Supernet, canonical::CanonicalTable, cost::CostTable};

use crate::{
    latency::LatencyTable,
    report::BudgetLimits,
    search::{ENUMERABLE, enumerate},
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
    /// Whether it is the latency: the prediction of what is measured in the end.
    pub is_latency: bool,
}

impl Demands<'_> {
    /// Everything that is limited, of a canonical path.
    pub fn of(&self, path: &Path) -> [Demand; 5] {
        let (cost, limits) = (self.costs.cost(path), self.limits);
        let of = |option, unit, value, limit| Demand { option, unit, value, limit, is_latency: false };
        let whole =
            |option, unit, value: u64, limit: Option<u64>| of(option, unit, value as f64, limit.map(|l| l as f64));
        let latency = of("--budget", "ms predicted", self.table.latency(path), Some(limits.latency_ms));
        // A table without energies has no limit on them: see what is checked before a search.
        let energy = self.table.energy(path).unwrap_or(0.0);
        [
            Demand { is_latency: true, ..latency },
            of("--energy-budget", "mJ predicted", energy, limits.energy_mj),
            whole("--max-macs", "MACs", cost.macs, limits.macs),
            whole("--max-params", "parameters", cost.params, limits.params),
            whole("--max-memory", "bytes", cost.peak_activation_bytes, limits.memory_bytes),
        ]
    }

    /// Whether anything but the latency is limited.
    pub fn has_others(&self) -> bool {
        let BudgetLimits { latency_ms: _, energy_mj, macs, params, memory_bytes } = self.limits;
        energy_mj.is_some() || macs.is_some() || params.is_some() || memory_bytes.is_some()
    }

    /// What a network, a canonical path, is over, the latency aside: the greatest excess.
    fn excess_besides_latency(&self, path: &Path) -> f64 {
        self.of(path).iter().filter(|demand| !demand.is_latency).map(Demand::excess).fold(0.0, f64::max)
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
                let over = self.of(&path).iter().filter(|demand| !demand.is_latency).filter_map(Demand::over).collect();
                Judged { nearest: Some((path, over)), ..Judged::default() }
            }
        }
    }
}

impl Demand {
    /// By how much it is over its limit, as a share of that; 0 within it.
    pub fn excess(&self) -> f64 {
        self.limit.map_or(0.0, |limit| ((self.value - limit) / limit).max(0.0))
    }

    /// What is over its limit, in words; none within it.
    pub fn over(&self) -> Option<String> {
        let limit = self.limit.filter(|_| self.excess() > 0.0)?;
        Some(format!("{}: {} {}, {limit} at most", self.option, self.value, self.unit))
    }
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
