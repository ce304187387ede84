//! The blocks of a supernet that take time: an operator with its shapes, once however many edges have it.

use nasbn_export::operator_graphs::needs_no_graph;
use nasbn_models::{Program, Supernet};

/// A block: what remains of an operator in a deployed network, on inputs of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Every (edge, operator) that is this block; the first stands for all.
    pub members: Vec<(usize, u8)>,
}

impl Block {
    /// The (edge, operator) whose graph is measured.
    pub fn first(&self) -> (usize, u8) {
        self.members.first().copied().unwrap_or_default()
    }
}

/// The distinct blocks, in the order of the edges: (edge, operator) pairs whose deployed programs are equal step by
/// step, shapes included. Operators that compute nothing (identity, absent) are none. What nodes do (sums and concatenations of edges)
/// belongs to no block: it is the correction's.
pub fn distinct(supernet: &Supernet) -> Vec<Block> {
    let mut found: Vec<(Program, Block)> = Vec::new();
    for (e, edge) in supernet.edges.iter().enumerate() {
        for &operator in supernet.candidates(edge) {
            let program = supernet.deployed_program(e, operator).unwrap_or_default();
            if needs_no_graph(&program) {
                continue;
            }
            match found.iter_mut().find(|(known, _)| *known == program) {
                Some((_, block)) => block.members.push((e, operator)),
                None => found.push((program, Block { members: vec![(e, operator)] })),
            }
        }
    }
    found.into_iter().map(|(_, block)| block).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::{
        BnPlacement,
        spec::{self, SpaceOptions},
    };

    use super::*;

    #[test]
    fn equal_operators_on_equal_shapes_are_one_block() {
        // Stem and head (and the first block of mobilenet), operators on shapes, and three strided identities, which are
        // convolutions.
        let expected = [("nas-bench-macro", 2 + 2 * 6 + 3, 2 + 2 * 8 + 3), ("mobilenet", 3 + 6 * 11, 3 + 6 * 21)];
        for (space, blocks, members) in expected {
            let options =
                SpaceOptions { placement: BnPlacement::EveryOperator, width: 1.0, image_size: None, classes: None };
            let supernet = spec::parse(spec::builtin(space).unwrap(), space, &options).unwrap();
            let found = distinct(&supernet);
            assert_eq!(found.len(), blocks, "{space}");
            assert_eq!(found.iter().map(|b| b.members.len()).sum::<usize>(), members, "{space}");
            // The slow twin: blocks are equal exactly where they should be.
            let program = |(e, o): (usize, u8)| supernet.deployed_program(e, o).unwrap();
            for (i, block) in found.iter().enumerate() {
                assert!(block.members.iter().all(|&m| program(m) == program(block.first())));
                assert!(found[..i].iter().all(|other| program(other.first()) != program(block.first())));
            }
        }
    }
}
