//! The path whose activations take most memory.

use std::collections::BTreeSet;

use nasbn_models::{Path, Primitive, Selection, Supernet};

/// Paths that have all operators of a supernet among them, from heaviest to lightest: path r takes on every choice the
/// candidate that is number r by what it keeps for its gradients, or the last one. Those that do not lead to the logits are
/// left out.
///
/// The first is the worst for both memory modes. `fast` keeps the input of every BatchNorm and what operators hand on, so
/// that at the turn from forwards to backwards the sum over the path is held; `lean` holds what operators hand on, which is
/// the same for all candidates, and those inputs of one operator at a time, so that the largest operator decides.
pub fn rows(supernet: &Supernet) -> Vec<Path> {
    let ranked = |choice: usize| -> Vec<u8> {
        let weight = |candidate: u8| -> u64 {
            let on_it = supernet.edges.iter().enumerate();
            let on_it = on_it.filter(|(_, edge)| edge.selection == Selection::Mixed(choice as u8));
            on_it.map(|(e, _)| held(supernet, e, candidate)).fold(0, u64::saturating_add)
        };
        let candidates = supernet.choices[choice].candidates.iter().enumerate();
        let mut ranked: Vec<(u64, u8)> = candidates.map(|(i, &candidate)| (weight(candidate), i as u8)).collect();
        ranked.sort_by_key(|&(weight, i)| (std::cmp::Reverse(weight), i));
        ranked.into_iter().map(|(_, i)| i).collect()
    };
    let ranked: Vec<Vec<u8>> = (0..supernet.choices.len()).map(ranked).collect();
    let count = ranked.iter().map(Vec::len).max().unwrap_or(1);
    let path = |row: usize| {
        let choices: Vec<u8> = ranked.iter().filter_map(|of| of.get(row).or(of.last()).copied()).collect();
        Path::new(&choices).filter(|path| supernet.is_connected(path))
    };
    (0..count).filter_map(path).collect()
}

/// The heaviest of some paths; none of none.
pub fn heaviest_of<'a>(supernet: &Supernet, paths: &'a [Path]) -> Option<&'a Path> {
    let edges = || supernet.edges.iter().enumerate();
    // Paths may be millions.
    let weights: Vec<Vec<(u8, u64)>> = edges()
        .map(|(e, edge)| supernet.candidates(edge).iter().map(|&o| (o, held(supernet, e, o))).collect())
        .collect();
    let on = |(e, operator): (usize, u8)| weights[e].iter().find(|(o, _)| *o == operator).map_or(0, |&(_, held)| held);
    let weight = |path: &&Path| -> u64 {
        edges().map(|(e, edge)| on((e, supernet.operator_on(edge, path)))).fold(0, u64::saturating_add)
    };
    paths.iter().max_by_key(weight)
}

/// How many pairs of an edge and an operator that computes something there are on any of `paths`; of no paths, in the
/// whole supernet.
pub fn operators(supernet: &Supernet, paths: &[Path]) -> usize {
    let edges = || supernet.edges.iter().enumerate();
    let computes = |(e, operator): &(usize, u8)| supernet.program(*e, *operator).is_ok_and(|p| p.steps.len() > 1);
    let all: BTreeSet<(usize, u8)> = match paths {
        [] => edges().flat_map(|(e, edge)| supernet.candidates(edge).iter().map(move |&o| (e, o))).collect(),
        paths => paths.iter().flat_map(|path| edges().map(|(e, edge)| (e, supernet.operator_on(edge, path)))).collect(),
    };
    all.iter().filter(|pair| computes(pair)).count()
}

/// Elements that an operator on an edge holds for one image: inputs of BatchNorms, and its output.
fn held(supernet: &Supernet, edge: usize, operator: u8) -> u64 {
    let Ok(program) = supernet.program(edge, operator) else { return 0 };
    // An operator of one step hands on what it was given.
    let Some(output) = program.steps.last().filter(|_| program.steps.len() > 1) else { return 0 };
    let norms = program.steps.iter().filter(|step| step.primitive == Primitive::BatchNorm);
    // Its input has the shape of its output.
    norms.chain([output]).map(|step| step.shape.elements()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_path_is_heavier() {
        let supernet = crate::testing::chain(3);
        let rows = rows(&supernet);
        let path = rows[0].clone();
        assert_eq!(rows.len(), 3);
        assert_eq!(operators(&supernet, &rows), operators(&supernet, &[]));
        let weight = |path: &Path| -> u64 {
            supernet
                .edges
                .iter()
                .enumerate()
                .map(|(e, edge)| held(&supernet, e, supernet.operator_on(edge, path)))
                .sum()
        };
        let all: Vec<Path> = supernet.paths().collect();
        assert_eq!(weight(&path), all.iter().map(weight).max().unwrap());
        assert!(weight(&path) > all.iter().map(weight).min().unwrap(), "all paths weigh the same: nothing is tested");
        assert_eq!(weight(heaviest_of(&supernet, &all).unwrap()), weight(&path));
        assert_eq!(heaviest_of(&supernet, &[]), None);
    }

    #[test]
    fn operators_are_counted_once() {
        let supernet = crate::testing::chain(3);
        let all: Vec<Path> = supernet.paths().collect();
        assert_eq!(operators(&supernet, &[]), operators(&supernet, &all));
        assert_eq!(operators(&supernet, &all[..1]), operators(&supernet, &[all[0].clone(), all[0].clone()]));
        assert!(operators(&supernet, &all[..1]) < operators(&supernet, &all));
    }
}
