//! The fused form of a graph computes what the graph computes, with fewer primitives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod operators;

use nasbn_export::{
    ir::{Graph, Op},
    lower::{
        Options,
        fused::{LARGEST_DEPTHWISE_KERNEL, fuse},
        lower,
    },
    reference::evaluate,
    roles,
};
use nasbn_models::{
    Program, Shape,
    manifest::{Lowering, MemoryMode},
};
use operators::{EXACT, cases, distance, feeds, mbconv, shuffled};

fn count(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> usize {
    graph.nodes().iter().filter(|n| wanted(&n.op)).count()
}

#[test]
fn fused_graphs_give_the_same_numbers() {
    let check = |name: &str, graph: &Graph, batch: usize| {
        let given = feeds(graph, batch, 3);
        let fused = fuse(graph).unwrap();
        assert!(fused.nodes().len() <= graph.nodes().len());
        let (found, expected) = (evaluate(&fused, &given).unwrap(), evaluate(graph, &given).unwrap());
        for ((port, found), (_, expected)) in found.iter().zip(&expected) {
            let error = distance(found, expected);
            assert!(error < EXACT, "{name} {port:?}: {error:e}");
        }
    };
    for case in cases() {
        for memory in [MemoryMode::Fast, MemoryMode::Lean] {
            let forward = roles::forward(&case.program, memory, false).unwrap();
            let backward = roles::backward(&case.program, memory, false).unwrap();
            [forward, backward].iter().for_each(|graph| check(&case.name, graph, case.batch));
        }
        let others = [roles::evaluation(&case.program).unwrap(), roles::jacobian(&case.program, false).unwrap()];
        let signs = roles::signs(&case.program).unwrap();
        others.iter().chain(&signs).for_each(|graph| check(&case.name, graph, case.batch));
    }
}

#[test]
fn an_inverted_residual_leaves_no_elementwise_primitive_but_the_sum_of_its_gradients() {
    let program = cases().into_iter().find(|c| c.name.starts_with("mb2k3 3x5x5")).unwrap().program;
    let forward = fuse(&roles::forward(&program, MemoryMode::Fast, false).unwrap()).unwrap();
    assert_eq!(count(&forward, |op| matches!(op, Op::Relu | Op::Add)), 0);
    let backward = fuse(&roles::backward(&program, MemoryMode::Fast, false).unwrap()).unwrap();
    assert_eq!(count(&backward, |op| *op == Op::BatchNormTrainGrad { relu: true }), 2);
    assert_eq!(count(&backward, |op| *op == Op::BatchNormTrainGrad { relu: false }), 1);
    assert_eq!(count(&backward, |op| matches!(op, Op::Relu | Op::ReluGrad | Op::BatchNormApply { .. })), 0);
    assert_eq!(count(&backward, |op| *op == Op::Add), 1);
    // Lean computes the inputs of the second and third BatchNorm again, each in one primitive.
    let lean = fuse(&roles::backward(&program, MemoryMode::Lean, false).unwrap()).unwrap();
    assert_eq!(count(&lean, |op| *op == Op::BatchNormApply { relu: true }), 2);
    assert_eq!(count(&lean, |op| matches!(op, Op::Relu | Op::ReluGrad)), 0);
    let signs = fuse(&roles::signs(&program).unwrap().unwrap()).unwrap();
    // No ReLU looks at the last BatchNorm.
    assert_eq!(count(&signs, |op| *op == Op::SignAgreement), 2);
    assert_eq!(count(&signs, |op| matches!(op, Op::BatchNormApply { .. })), 0);
    let jacobian = fuse(&roles::jacobian(&program, false).unwrap()).unwrap();
    assert_eq!(count(&jacobian, |op| *op == Op::BatchNormApplyGrad { relu: true }), 2);
    assert_eq!(count(&jacobian, |op| *op == Op::BatchNormApplyGrad { relu: false }), 1);
    assert_eq!(count(&jacobian, |op| matches!(op, Op::Relu | Op::ReluGrad | Op::BatchNormApply { .. })), 0);
}

/// Spaces may have kernels of up to 31; the fused operator stops at what its contract says.
#[test]
fn depthwise_kernels_beyond_the_fused_operators_are_left_to_the_portable_nodes() {
    let largest = u8::try_from(LARGEST_DEPTHWISE_KERNEL).unwrap();
    for (kernel, fused) in [(3, true), (largest, true), (largest + 2, false), (31, false)] {
        let shape = Shape::new(3, 9, 9);
        let program = Program::build(&mbconv(kernel, 2, false), shape, shape, 1, false).unwrap();
        let forward = roles::forward(&program, MemoryMode::Fast, false).unwrap();
        let backward = roles::backward(&program, MemoryMode::Fast, false).unwrap();
        for (graph, operator) in [(forward, "DepthwiseConv"), (backward, "DepthwiseConvGrad")] {
            let options = Options { name: "g", key: "k", lowering: Lowering::Fused, from_image: false, epsilon: 1e-5 };
            let model = lower(&graph, options).unwrap().model;
            let nodes = model.graph.unwrap().node;
            assert_eq!(nodes.iter().any(|n| n.op_type() == operator), fused, "kernel {kernel}, {operator}");
        }
    }
}

#[test]
fn a_shuffled_block_stays_in_one_layout() {
    let shape = Shape::new(6, 5, 4);
    let program = Program::build(&shuffled(3, 2), shape, shape, 1, true).unwrap();
    let graphs = [MemoryMode::Fast, MemoryMode::Lean].map(|memory| {
        let forward = roles::forward(&program, memory, false).unwrap();
        [forward, roles::backward(&program, memory, false).unwrap()]
    });
    for graph in graphs.as_flattened() {
        let options = Options { name: "g", key: "k", lowering: Lowering::Fused, from_image: false, epsilon: 1e-5 };
        let nodes = lower(graph, options).unwrap().model.graph.unwrap().node;
        let of = |op_type: &str| nodes.iter().filter(|n| n.op_type() == op_type).count();
        let convolutions = |op: &Op| matches!(op, Op::Conv { groups: 2, .. } | Op::ConvInputGrad { groups: 2, .. });
        let grouped = count(graph, convolutions);
        assert!(grouped >= 2);
        // Of each, activations and weight are cut in two.
        assert_eq!((of("Conv"), of("ConvTranspose"), of("Concat")), (0, 0, grouped));
        assert_eq!((of("MatMul"), of("Split")), (2 * grouped, 2 * grouped));
        // Images are transposed nowhere: what is has the rank of a weight or, in the shuffle, of a matrix of channels.
        let ranks = nodes.iter().filter(|n| n.op_type() == "Transpose").map(|n| n.attribute[0].ints.len());
        assert!(ranks.clone().all(|rank| rank != 4), "{:?}", ranks.collect::<Vec<_>>());
    }
}
