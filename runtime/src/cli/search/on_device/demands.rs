//! What networks take of what is limited, as far as is known before they are measured.

use nasbn_models::{Path, cost::CostTable};

use crate::{latency::LatencyTable, report::BudgetLimits};

/// Where that is known from.
#[derive(Clone, Copy)]
pub struct Demands<'a> {
    pub limits: &'a BudgetLimits,
    pub costs: &'a CostTable,
    pub table: &'a LatencyTable,
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
