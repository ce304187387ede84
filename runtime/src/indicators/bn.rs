//! Indicators that are sums over (edge, operator): read once from gamma, then millions of paths a second.

use nasbn_models::{Path, Supernet};

use crate::{
    parameters::{BnParameters, Layout},
    path_table::PathTable,
};

/// The BN indicator of every operator on every edge, by mean |gamma| of its BatchNorms.
#[derive(Clone, Debug)]
pub struct BnTable {
    all: PathTable,
    last: PathTable,
}

impl BnTable {
    /// Reads gamma of every candidate.
    pub fn new(supernet: &Supernet, layout: &Layout, parameters: &BnParameters) -> Self {
        let mean = |slot: usize| {
            let gamma = &parameters.gamma[layout.slots()[slot].range.clone()];
            gamma.iter().map(|&g| f64::from(g.abs())).sum::<f64>() / gamma.len().max(1) as f64
        };
        let mixed = |edge: usize| supernet.candidates(&supernet.edges[edge]).len() > 1;
        let last = |edge, operator| layout.operator(edge, operator).next_back().filter(|_| mixed(edge));
        Self {
            all: PathTable::of_edges(supernet, |edge, operator| layout.operator(edge, operator).map(mean).sum()),
            last: PathTable::of_edges(supernet, |edge, operator| last(edge, operator).map_or(0.0, mean)),
        }
    }

    /// Expressivity over all BatchNorms of the path: the sum of mean |gamma| (arXiv 2112.00265, section 3).
    pub fn all(&self, path: &Path) -> f64 {
        self.all.value(path)
    }

    /// The indicator of BN-NAS (Chen et al. 2021, equation 4): the sum over searchable layers of
    /// mean |gamma| of the chosen operator's last BatchNorm.
    pub fn last(&self, path: &Path) -> f64 {
        self.last.value(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::chain;
    use nasbn_models::Selection;

    /// f64 against f64, one order of summation against another.
    const EXACT: f64 = 1e-12;

    /// The definition, edge by edge.
    fn naive(supernet: &Supernet, layout: &Layout, parameters: &BnParameters, path: &Path) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for (e, edge) in supernet.edges.iter().enumerate() {
            let slots = layout.operator(e, supernet.operator_on(edge, path));
            let means = slots.map(|slot| {
                let range = layout.slots()[slot].range.clone();
                range.clone().map(|c| f64::from(parameters.gamma[c]).abs()).sum::<f64>() / range.len() as f64
            });
            let means: Vec<f64> = means.collect();
            sums[0] += means.iter().sum::<f64>();
            if supernet.candidates(edge).len() > 1 {
                sums[1] += means.last().unwrap_or(&0.0);
            }
        }
        sums
    }

    #[test]
    fn tables_are_sums_over_edges() {
        let mut shared = chain(3);
        // Two edges with one choice, as repeated cells have them.
        shared.edges[3].selection = Selection::Mixed(0);
        for supernet in [chain(4), shared] {
            let layout = Layout::new(&supernet);
            let mut parameters = BnParameters::initial(&layout);
            parameters.gamma.iter_mut().enumerate().for_each(|(i, g)| *g = (i as f32 * 1.7).sin());
            let table = BnTable::new(&supernet, &layout, &parameters);
            for path in supernet.paths() {
                let [all, last] = naive(&supernet, &layout, &parameters, &path);
                assert!((table.all(&path) - all).abs() < EXACT && (table.last(&path) - last).abs() < EXACT);
                assert!(table.all(&path) > table.last(&path), "the stem's BatchNorm is not searched");
            }
        }
    }
}
