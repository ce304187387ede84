//! Peak activation memory against a slow twin that writes the whole network down and looks at every moment.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, missing_docs)]

use nasbn_models::{
    BnPlacement, Combine, Path, Primitive, Supernet,
    cost::CostTable,
    sample,
    spec::{self, SpaceOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const OPTIONS: SpaceOptions =
    SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };

/// One computation: the values that it reads, those that it may write over, and the value that it makes.
struct Moment {
    inputs: Vec<usize>,
    may_replace: Vec<usize>,
    output: usize,
}

/// A network as a list of moments over numbered values.
#[derive(Default)]
struct Written {
    sizes: Vec<u64>,
    moments: Vec<Moment>,
}

impl Written {
    fn make(&mut self, inputs: Vec<usize>, may_replace: Vec<usize>, size: u64) -> usize {
        let output = self.sizes.len();
        self.sizes.push(size);
        self.moments.push(Moment { inputs, may_replace, output });
        output
    }

    /// Whether a value is read after moment `t`; the last one, the logits, always is.
    fn is_needed_after(&self, value: usize, t: usize, logits: usize) -> bool {
        value == logits || self.moments[t + 1..].iter().any(|m| m.inputs.contains(&value))
    }

    fn peak(&self, logits: usize) -> u64 {
        let at = |t: usize| {
            let moment = &self.moments[t];
            let before = (0..self.sizes.len()).filter(|&v| {
                let made = self.moments[..t].iter().any(|m| m.output == v);
                made && (moment.inputs.contains(&v) || self.is_needed_after(v, t, logits))
            });
            let alive: u64 = before.map(|v| self.sizes[v]).sum();
            let replaces = moment.may_replace.iter().any(|&v| !self.is_needed_after(v, t, logits));
            if replaces { alive } else { alive + self.sizes[moment.output] }
        };
        (0..self.moments.len()).map(at).max().unwrap()
    }
}

fn slow_peak_bytes(space: &Supernet, path: &Path) -> u64 {
    let mut net = Written::default();
    let mut nodes = vec![net.make(vec![], vec![], space.image().elements())];
    for n in 1..space.nodes.len() {
        let incoming: Vec<usize> = (0..space.edges.len()).filter(|&e| usize::from(space.edges[e].to) == n).collect();
        let concat = space.nodes[n].combine == Combine::Concat && incoming.len() > 1;
        let mut parts: Vec<usize> = Vec::new();
        for e in incoming {
            let edge = &space.edges[e];
            let program = space.deployed_program(e, space.operator_on(edge, path)).unwrap();
            let mut values = Vec::new();
            for (i, step) in program.steps.iter().enumerate() {
                let inputs: Vec<usize> = step.inputs.iter().map(|&x| values[usize::from(x)]).collect();
                let size = step.shape.elements();
                values.push(match step.primitive {
                    Primitive::Input => nodes[usize::from(edge.from)],
                    Primitive::Conv { .. }
                    | Primitive::AvgPool { .. }
                    | Primitive::GlobalAvgPool
                    | Primitive::Linear
                    | Primitive::ChannelShuffle { .. } => net.make(inputs, vec![], size),
                    _ => {
                        let inside = i > 0 && step.inputs[0] != 0;
                        let may_replace = if inside { vec![inputs[0]] } else { vec![] };
                        net.make(inputs, may_replace, size)
                    }
                });
            }
            match (values.last(), parts.first(), concat) {
                (Some(&part), _, true) => parts.push(part),
                (None, _, true) => parts.push(net.make(vec![], vec![], space.edge_shape(edge).elements())),
                (Some(&part), Some(&sum), false) => {
                    parts[0] = net.make(vec![sum, part], vec![sum, part], space.nodes[n].shape.elements());
                }
                (Some(&part), None, false) => parts.push(part),
                (None, ..) => {}
            }
        }
        let size = space.nodes[n].shape.elements();
        nodes.push(match (parts.first(), concat) {
            (_, true) => net.make(parts, vec![], size),
            (Some(&sum), false) => sum,
            (None, false) => net.make(vec![], vec![], size),
        });
    }
    4 * net.peak(*nodes.last().unwrap())
}

#[test]
fn the_table_equals_the_slow_twin() {
    let narrow = SpaceOptions { width: 0.25, image_size: Some(32), classes: Some(7), ..OPTIONS };
    let files = [
        include_str!("fixtures/tiny-cell.toml"),
        include_str!("fixtures/two-inputs.toml"),
        spec::builtin("nas-bench-macro").unwrap(),
        spec::builtin("mobilenet").unwrap(),
        spec::builtin("fbnet").unwrap(),
    ];
    for text in files {
        for options in [OPTIONS, narrow] {
            let space = spec::parse(text, "test", &options).unwrap();
            let table = CostTable::new(&space);
            let mut rng = ChaCha8Rng::seed_from_u64(11);
            let mut peaks = std::collections::BTreeSet::new();
            for _ in 0..300 {
                // Disconnected paths too: their zeros are values like others.
                let choices: Vec<u8> =
                    space.choices.iter().map(|c| sample::below(&mut rng, c.candidates.len() as u32) as u8).collect();
                let path = Path::new(&choices).unwrap();
                let peak = table.cost(&path).peak_activation_bytes;
                assert_eq!(peak, slow_peak_bytes(&space, &path), "{} {}", space.name, space.format_path(&path));
                peaks.insert(peak);
            }
            assert!(peaks.len() > 1, "{} tells no paths apart", space.name);
        }
    }
}

#[test]
fn a_chain_by_hand() {
    let space = spec::parse(spec::builtin("nas-bench-macro").unwrap(), "test", &OPTIONS).unwrap();
    let peak = |text: &str| CostTable::new(&space).cost(&space.parse_path(text).unwrap()).peak_activation_bytes;
    let side = |s: u64| s * s;
    // The first layer expands the stem's 32 channels to 192 at 32 x 32 beside its input; then 192 beside 192 at 16 x 16.
    assert_eq!(peak("20000000"), 4 * ((32 + 192) * side(32)).max(192 * (side(32) + side(16))));
    // Image, stem and its first reduction: nothing expands, so the stem's output beside the next layer's.
    assert_eq!(peak("00000000"), 4 * (32 * side(32) + 64 * side(16)));
    // A residual block keeps its input: 64 beside twice 384 channels at 16 x 16.
    assert_eq!(peak("02000000"), 4 * (64 + 2 * 384) * side(16));
}
