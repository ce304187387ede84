//! A small supernet for this crate's tests.
#![allow(clippy::unwrap_used)]

use nasbn_models::{
    BnPlacement, Choice, Combine, Edge, Form, Layer, Node, Operator, Selection, Shape, Supernet, Width,
    supernet::TextForm,
};

/// A chain of `layers` choices between identity, a 1x1 and a 3x3 convolution, on 4 x 4 images.
/// Neighbours have their candidates in different orders, so that every path is canonical.
pub(crate) fn chain(layers: u16) -> Supernet {
    let conv = |kernel| Layer::Conv { kernel, width: Width::Output, depthwise: false, strided: true };
    let of =
        |name: &str, layers| Operator { name: name.into(), form: Form::Layers { layers, residual: false }, timm: None };
    let node = |channels, side| Node { shape: Shape::new(channels, side, side), combine: Combine::Sum };
    let edge = |from, channels, selection| Edge { from, to: from + 1, stride: 1, channels, selection };
    let mut nodes = vec![node(3, 4)];
    nodes.extend((0..=layers).map(|_| node(4, 4)));
    nodes.push(node(2, 1));
    let mut edges = vec![edge(0, 4, Selection::Fixed(0))];
    edges.extend((1..=layers).map(|i| edge(i, 4, Selection::Mixed(i as u8 - 1))));
    edges.push(edge(layers + 1, 2, Selection::Fixed(4)));
    let supernet = Supernet {
        name: "chain".into(),
        placement: BnPlacement::Convolution,
        width_permille: 1000,
        nodes,
        edges,
        choices: (0..layers)
            .map(|i| Choice {
                name: format!("layer {i}"),
                candidates: if i % 2 == 0 { vec![1, 2, 3] } else { vec![1, 3, 2] },
            })
            .collect(),
        operators: vec![
            of("stem", vec![conv(3), Layer::BatchNorm, Layer::Relu]),
            Operator { name: "identity".into(), form: Form::Identity, timm: None },
            of("one", vec![conv(1), Layer::BatchNorm]),
            of("three", vec![conv(3), Layer::BatchNorm]),
            of("head", vec![Layer::GlobalAvgPool, Layer::Linear { width: Width::Output }]),
        ],
        alphabet: vec![1, 2, 3],
        text_form: TextForm::Digits,
    };
    supernet.validate().unwrap();
    supernet
}
