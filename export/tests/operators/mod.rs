//! Operators, numbers and tolerances that the tests of this crate share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs)]

use nasbn_export::{
    ir::{Dims, Graph, Op},
    reference::Feeds,
};
use nasbn_models::{Form, Layer, Operator, Program, Shape, Width, manifest::Port};
use ndarray::{ArrayD, IxDyn};

/// Step of central differences.
pub const STEP: f64 = 1e-5;
/// Central differences against derived gradients, absolute and relative.
pub const DIFFERENCES: f64 = 1e-7;
/// Two orders of the same f64 arithmetic, absolute and relative.
pub const EXACT: f64 = 1e-11;
/// Epsilon of BatchNorms.
pub const EPSILON: f64 = 1e-5;

/// Numbers in -1..1, the same for the same seed (splitmix64, Steele et al. 2014).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    pub fn array(&mut self, dims: &[usize]) -> ArrayD<f64> {
        ArrayD::from_shape_fn(IxDyn(dims), |_| self.next())
    }
}

pub fn conv(kernel: u8, width: Width, depthwise: bool, strided: bool) -> Layer {
    Layer::Conv { kernel, width, depthwise, strided }
}

pub fn grouped(kernel: u8, width: Width, groups: u32, strided: bool) -> Layer {
    Layer::GroupedConv { kernel, width, groups, strided }
}

/// A block of FBNet's space without expansion, its 1x1 convolutions in groups, channels shuffled between them.
pub fn shuffled(kernel: u8, groups: u32) -> Operator {
    let layers = vec![
        grouped(1, Width::Same, groups, false),
        Layer::BatchNorm,
        Layer::Relu,
        Layer::ChannelShuffle { groups },
        conv(kernel, Width::Same, true, true),
        Layer::BatchNorm,
        Layer::Relu,
        grouped(1, Width::Output, groups, false),
        Layer::BatchNorm,
    ];
    operator(&format!("g{groups}k{kernel}"), layers, true)
}

pub fn operator(name: &str, layers: Vec<Layer>, residual: bool) -> Operator {
    Operator { name: name.into(), form: Form::Layers { layers, residual }, timm: None }
}

/// An inverted residual of MobileNetV2.
pub fn mbconv(kernel: u8, expand: u8, se: bool) -> Operator {
    let mut layers = vec![
        conv(1, Width::Expand(expand), false, false),
        Layer::BatchNorm,
        Layer::Relu,
        conv(kernel, Width::Same, true, true),
        Layer::BatchNorm,
        Layer::Relu,
    ];
    if se {
        layers.push(Layer::SqueezeExcitation { divisor: 2 });
    }
    layers.extend([conv(1, Width::Output, false, false), Layer::BatchNorm]);
    operator(&format!("mb{expand}k{kernel}{}", if se { "se" } else { "" }), layers, true)
}

pub struct Case {
    pub name: String,
    pub program: Program,
    pub batch: usize,
}

/// Operators that between them have every primitive, stride, kernel and an odd everything.
pub fn cases() -> Vec<Case> {
    let identity = Operator { name: "identity".into(), form: Form::Identity, timm: None };
    let full = |k| {
        operator(&format!("conv{k}"), vec![conv(k, Width::Output, false, true), Layer::BatchNorm, Layer::Relu], true)
    };
    let pool = operator("pool", vec![Layer::AvgPool { kernel: 3, strided: true }], false);
    let pre =
        operator("preactivation", vec![Layer::Relu, conv(3, Width::Output, false, true), Layer::BatchNorm], false);
    let head = operator(
        "head",
        vec![
            conv(1, Width::Fixed(7), false, false),
            Layer::BatchNorm,
            Layer::Relu,
            Layer::GlobalAvgPool,
            Layer::Linear { width: Width::Output },
        ],
        false,
    );
    let deep_head = operator(
        "deep-head",
        vec![
            Layer::GlobalAvgPool,
            Layer::Linear { width: Width::Fixed(5) },
            Layer::BatchNorm,
            Layer::Relu,
            Layer::Linear { width: Width::Output },
        ],
        false,
    );
    let mut cases = Vec::new();
    let mut add = |operator: &Operator, input: Shape, output: Shape, stride: u8, fair: bool, batch: usize| {
        let program = Program::build(operator, input, output, stride, fair).unwrap();
        let name = format!("{} {input}-{output} s{stride} fair {fair} batch {batch}", operator.name);
        cases.push(Case { name, program, batch });
    };
    let s = Shape::new;
    add(&identity, s(3, 5, 4), s(3, 5, 4), 1, true, 2);
    add(&identity, s(3, 7, 7), s(5, 4, 4), 2, false, 2);
    add(&pool, s(3, 5, 5), s(3, 5, 5), 1, true, 2);
    add(&pool, s(3, 7, 6), s(3, 4, 3), 2, false, 2);
    add(&full(1), s(3, 4, 5), s(3, 4, 5), 1, true, 3);
    add(&full(3), s(3, 7, 5), s(4, 4, 3), 2, false, 2);
    add(&full(3), s(2, 6, 5), s(2, 6, 5), 1, false, 2);
    add(&full(5), s(2, 7, 7), s(3, 3, 3), 3, false, 2);
    add(&pre, s(3, 5, 5), s(5, 5, 5), 1, false, 2);
    add(&mbconv(3, 2, false), s(3, 5, 5), s(3, 5, 5), 1, true, 2);
    add(&mbconv(3, 3, false), s(3, 7, 7), s(5, 4, 4), 2, true, 2);
    add(&mbconv(5, 2, false), s(3, 7, 7), s(3, 7, 7), 1, true, 1);
    add(&mbconv(7, 2, true), s(3, 7, 5), s(5, 4, 3), 2, true, 2);
    add(&mbconv(3, 2, true), s(3, 4, 4), s(3, 4, 4), 1, true, 3);
    add(&mbconv(17, 2, false), s(2, 5, 4), s(2, 5, 4), 1, false, 1);
    add(&head, s(5, 3, 3), s(4, 1, 1), 1, false, 3);
    add(&deep_head, s(5, 3, 3), s(4, 1, 1), 1, false, 3);
    let skip = Operator { name: "skip".into(), form: Form::Skip, timm: None };
    let groups = |kernel, groups| {
        let layers = vec![grouped(kernel, Width::Output, groups, true), Layer::BatchNorm, Layer::Relu];
        operator(&format!("groups{groups}k{kernel}"), layers, false)
    };
    add(&skip, s(3, 5, 4), s(3, 5, 4), 1, true, 2);
    add(&skip, s(3, 7, 7), s(5, 4, 4), 2, true, 2);
    // Six channels, so that a shuffle is not its own inverse.
    add(&shuffled(3, 2), s(6, 5, 4), s(6, 5, 4), 1, true, 2);
    add(&shuffled(5, 3), s(6, 7, 5), s(9, 4, 3), 2, true, 2);
    add(&groups(1, 2), s(6, 7, 5), s(4, 4, 3), 2, false, 2);
    add(&groups(3, 2), s(4, 5, 4), s(6, 5, 4), 1, false, 2);
    add(&groups(3, 3), s(6, 7, 5), s(3, 4, 3), 2, false, 2);
    add(&groups(1, 9), s(18, 3, 2), s(9, 3, 2), 1, false, 2);
    cases
}

/// Random feeds for every input and weight of `graph`; variances are positive.
pub fn feeds(graph: &Graph, batch: usize, seed: u64) -> Feeds {
    let mut numbers = Numbers(seed);
    let mut feeds = Feeds { epsilon: EPSILON, ..Feeds::default() };
    feed(graph, batch, &mut numbers, &mut feeds);
    feeds
}

/// Adds to `feeds` what `graph` needs and they lack.
pub fn feed(graph: &Graph, batch: usize, numbers: &mut Numbers, feeds: &mut Feeds) {
    for node in graph.nodes() {
        let dims = node.outputs[0].sizes(batch);
        match &node.op {
            Op::Input(port) if !feeds.ports.contains_key(port) => {
                let mut array = numbers.array(&dims);
                match port {
                    Port::Gamma(_) => array.mapv_inplace(|v| 1.0 + 0.5 * v),
                    Port::Var(_) => array.mapv_inplace(|v| 1.0 + 0.5 * v),
                    Port::Labels => array = ArrayD::from_shape_fn(IxDyn(&dims), |i| (i[0] % 3) as f64),
                    _ => {}
                }
                feeds.ports.insert(*port, array);
            }
            Op::Weight(name) if !feeds.weights.contains_key(name) => {
                feeds.weights.insert(name.clone(), numbers.array(&dims));
            }
            _ => {}
        }
    }
}

/// A leaf of any extents.
pub fn input(graph: &mut Graph, port: Port, dims: Dims) -> nasbn_export::ir::Value {
    graph.leaf(Op::Input(port), dims)
}

/// Largest difference, relative to the larger of 1 and the expected value.
pub fn distance(found: &ArrayD<f64>, expected: &ArrayD<f64>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let each = found.iter().zip(expected).map(|(f, e)| {
        assert!(f.is_finite() && e.is_finite());
        (f - e).abs() / e.abs().max(1.0)
    });
    each.fold(0.0, f64::max)
}
