//! Indicators that are sums over (edge, operator): read once from gamma, then millions of paths a second.

use nasbn_models::{Path, Supernet};

use crate::parameters::{BnParameters, Layout};

/// The BN indicator of every operator on every edge: mean |gamma| of its BatchNorms.
#[derive(Clone, Debug)]
pub struct BnTable {
    /// Per edge and operator: sum over all BNs of mean |gamma|, and mean |gamma| of the last BN.
    entries: Vec<Vec<(u8, f64, f64)>>,
    /// Whether the edge is mixed.
    mixed: Vec<bool>,
}

impl BnTable {
    /// Reads gamma of every candidate.
    pub fn new(supernet: &Supernet, layout: &Layout, parameters: &BnParameters) -> Self {
        let mean = |slot: usize| {
            let gamma = &parameters.gamma[layout.slots()[slot].range.clone()];
            gamma.iter().map(|&g| f64::from(g.abs())).sum::<f64>() / gamma.len().max(1) as f64
        };
        let entries = supernet.edges.iter().enumerate().map(|(e, edge)| {
            let entry = |&operator: &u8| {
                let slots = layout.operator(e, operator);
                let last = slots.clone().next_back().map_or(0.0, mean);
                (operator, slots.map(mean).sum(), last)
            };
            supernet.candidates(edge).iter().map(entry).collect()
        });
        let mixed = supernet.edges.iter().map(|e| supernet.candidates(e).len() > 1);
        Self { entries: entries.collect(), mixed: mixed.collect() }
    }

    fn sum(&self, supernet: &Supernet, path: &Path, value: impl Fn(usize, &(u8, f64, f64)) -> f64) -> f64 {
        let edges = supernet.edges.iter().zip(&self.entries).enumerate();
        edges
            .map(|(e, (edge, entries))| {
                let operator = supernet.operator_on(edge, path);
                entries.iter().find(|entry| entry.0 == operator).map_or(0.0, |entry| value(e, entry))
            })
            .sum()
    }

    /// Expressivity over all BatchNorms of the path: the sum of mean |gamma| (arXiv 2112.00265, section 3).
    pub fn all(&self, supernet: &Supernet, path: &Path) -> f64 {
        self.sum(supernet, path, |_, entry| entry.1)
    }

    /// The indicator of BN-NAS (Chen et al. 2021, equation 4): the sum over searchable layers of
    /// mean |gamma| of the chosen operator's last BatchNorm.
    pub fn last(&self, supernet: &Supernet, path: &Path) -> f64 {
        self.sum(supernet, path, |e, entry| if self.mixed[e] { entry.2 } else { 0.0 })
    }
}
