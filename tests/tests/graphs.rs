//! Lowered graphs in ONNX Runtime against the f64 reference, in both lowerings.
#![allow(clippy::arc_with_non_send_sync, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../export/tests/operators/mod.rs"]
mod operators_of_export;

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use nasbn_export::{
    ir::{Dims, Graph},
    lower::{Options, inference, lower},
    onnx::{Dim, ElemType, GraphBuilder, proto::ModelProto, resolve_external},
    operator_graphs::{self, BuiltGraph, operator_graphs},
    reference::{Feeds, evaluate},
    roles,
};
use nasbn_models::manifest::{Lowering, MemoryMode, Port, Role};
use ndarray::{ArrayD, IxDyn};
use operators_of_export::{Case, cases, feed, feeds};
use ort::{
    environment::Environment,
    operator::OperatorDomain,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::Tensor,
};
use prost::Message;

/// float32 against float64 over some ten operators in a row, absolute and relative to the largest value.
const CLOSE: f64 = 2e-5;
const EPSILON: f32 = 1e-5;

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let library = nasbn_tests::ort_library();
        ort::init_from(library).unwrap().with_name("graphs").with_telemetry(false).build().unwrap()
    })
}

fn operators() -> Arc<OperatorDomain> {
    Arc::new(nasbn_runtime::kernels::operators::domain().unwrap())
}

/// Rounds what is fed to float32, so that both sides start from the same numbers.
fn round(feeds: &mut Feeds) {
    feeds.epsilon = f64::from(EPSILON);
    for array in feeds.ports.values_mut().chain(feeds.weights.values_mut()) {
        array.mapv_inplace(|v| f64::from(v as f32));
    }
}

/// Writes the weights' file and the model beside it, as a bundle does, and opens the model.
fn open(mut model: ModelProto, feeds: &Feeds, key: &str, directory: &Path) -> Session {
    let mut bytes: Vec<u8> = Vec::new();
    let mut places = HashMap::new();
    for (name, array) in &feeds.weights {
        places.insert(format!("{key}.{name}"), (bytes.len() as u64, 4 * array.len() as u64));
        bytes.extend(array.iter().flat_map(|&v| (v as f32).to_le_bytes()));
    }
    fs::write(directory.join("weights"), bytes).unwrap();
    resolve_external(&mut model, "weights", |name| places.get(name).copied()).unwrap();
    let file = directory.join("model.onnx");
    fs::write(&file, model.encode_to_vec()).unwrap();
    // ONNX Runtime must not meet a new domain on two threads at once.
    static OPENING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = OPENING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Session::builder(environment())
        .unwrap()
        .with_optimization_level(GraphOptimizationLevel::All)
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .with_operators(operators())
        .unwrap()
        .commit_from_file(&file)
        .unwrap()
}

fn to_layout(array: &ArrayD<f64>, channels_last: bool) -> ArrayD<f64> {
    match channels_last && array.ndim() == 4 {
        true => array.clone().permuted_axes(IxDyn(&[0, 2, 3, 1])).as_standard_layout().into_owned(),
        false => array.clone(),
    }
}

fn from_layout(array: ArrayD<f64>, channels_last: bool) -> ArrayD<f64> {
    match channels_last && array.ndim() == 4 {
        true => array.permuted_axes(IxDyn(&[0, 3, 1, 2])).as_standard_layout().into_owned(),
        false => array,
    }
}

/// Runs a graph; `channels_last` says which ports hold images as `[N, H, W, C]`.
fn run(built: BuiltGraph, feeds: &Feeds, key: &str, channels_last: impl Fn(Port) -> bool) -> Vec<(Port, ArrayD<f64>)> {
    let directory = tempfile::tempdir().unwrap();
    let mut session = open(built.model, feeds, key, directory.path());
    let names: Vec<String> = session.inputs().iter().map(|i| i.name().to_owned()).collect();
    assert_eq!(names, built.inputs.iter().map(|p| p.name.clone()).collect::<Vec<_>>());
    let inputs: Vec<SessionInputValue<'_>> = built
        .inputs
        .iter()
        .map(|named| {
            let array = to_layout(&feeds.ports[&named.port], channels_last(named.port));
            match named.port {
                Port::Labels => Tensor::from_array(array.mapv(|v| v as i64)).unwrap().into_dyn().into(),
                _ => Tensor::from_array(array.mapv(|v| v as f32)).unwrap().into_dyn().into(),
            }
        })
        .collect();
    let outputs = session.run(inputs.as_slice()).unwrap();
    let read = |named: &nasbn_models::manifest::NamedPort| {
        let array = outputs[named.name.as_str()].try_extract_array::<f32>().unwrap().mapv(f64::from);
        (named.port, from_layout(array.into_dimensionality::<IxDyn>().unwrap(), channels_last(named.port)))
    };
    built.outputs.iter().map(read).collect()
}

/// Largest difference, relative to the largest expected value (but at least 1).
fn error(found: &ArrayD<f64>, expected: &ArrayD<f64>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let scale = expected.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    let each = found.iter().zip(expected).map(|(f, e)| (f - e).abs() / scale);
    each.fold(0.0, |m: f64, d| if d.is_finite() { m.max(d) } else { f64::INFINITY })
}

fn check(what: &str, found: &[(Port, ArrayD<f64>)], expected: &[(Port, ArrayD<f64>)]) {
    assert_eq!(found.iter().map(|(p, _)| *p).collect::<Vec<_>>(), expected.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    for ((port, found), (_, expected)) in found.iter().zip(expected) {
        let error = error(found, expected);
        assert!(error < CLOSE, "{what}, {port:?}: off by {error:e}");
    }
}

/// Feeds for every graph of a case: what backward needs is the reference's own forward pass, rounded.
fn case_feeds(case: &Case, seed: u64) -> Feeds {
    let forward = roles::forward(&case.program, MemoryMode::Fast, false).unwrap();
    let backward = roles::backward(&case.program, MemoryMode::Fast, false).unwrap();
    let mut given = feeds(&forward, case.batch, seed);
    round(&mut given);
    for (port, value) in evaluate(&forward, &given).unwrap() {
        given.ports.insert(port, value);
    }
    feed(&backward, case.batch, &mut operators_of_export::Numbers(seed + 1000), &mut given);
    round(&mut given);
    given
}

fn reference_graph(case: &Case, role: Role, from_image: bool) -> Graph {
    match role {
        Role::Forward(memory) => roles::forward(&case.program, memory, from_image),
        Role::Backward(memory) => roles::backward(&case.program, memory, from_image),
        Role::Jacobian => roles::jacobian(&case.program, from_image),
        Role::Signs => roles::signs(&case.program).map(Option::unwrap),
        Role::SynFlow => roles::synflow(&case.program).map(Option::unwrap),
        _ => roles::evaluation(&case.program),
    }
    .unwrap()
}

#[test]
fn every_graph_of_every_operator_gives_the_numbers_of_the_reference() {
    for (number, case) in cases().into_iter().enumerate() {
        let given = case_feeds(&case, number as u64);
        for from_image in [false, true] {
            for built in operator_graphs(&case.program, &case.program, "e00.o", from_image, EPSILON).unwrap() {
                if built.role == Role::Inference {
                    continue;
                }
                let (role, lowering) = (built.role, built.lowering);
                let signed = given.clone();
                let mut given = given.clone();
                if role == Role::SynFlow {
                    given.weights.values_mut().for_each(|weight| weight.mapv_inplace(f64::abs));
                }
                let expected = evaluate(&reference_graph(&case, role, from_image), &given).unwrap();
                let fused = lowering == Lowering::Fused;
                let channels_last = |port| fused && !(from_image && matches!(port, Port::X | Port::Dx));
                // Magnitudes are taken by the graph itself.
                let found = run(built, &signed, "e00.o", channels_last);
                check(&format!("{} {role:?} {lowering:?}, image {from_image}", case.name), &found, &expected);
            }
        }
    }
}

#[test]
fn every_operator_has_all_its_graphs() {
    let case = &cases()[0];
    let built = operator_graphs(&case.program, &Default::default(), "e00.o", false, EPSILON).unwrap();
    let roles: Vec<_> = built.iter().map(|b| (b.role, b.lowering)).collect();
    for memory in [MemoryMode::Fast, MemoryMode::Lean] {
        for lowering in [Lowering::Portable, Lowering::Fused] {
            assert!(roles.contains(&(Role::Forward(memory), lowering)));
            assert!(roles.contains(&(Role::Backward(memory), lowering)));
        }
    }
    for role in [Role::Jacobian, Role::Evaluate] {
        for lowering in [Lowering::Portable, Lowering::Fused] {
            assert!(roles.contains(&(role, lowering)));
        }
    }
    assert_eq!(roles.len(), 12, "what passes its input on when deployed has no inference graph, without ReLU no signs");
    let case = cases().into_iter().find(|case| case.name.starts_with("conv3 ")).unwrap();
    let built = operator_graphs(&case.program, &case.program, "e00.o", false, EPSILON).unwrap();
    for (role, count) in [(Role::Signs, 2), (Role::SynFlow, 1), (Role::Inference, 1)] {
        assert_eq!(built.iter().filter(|b| b.role == role).count(), count, "{role:?}");
    }
}

#[test]
fn inference_graphs_are_evaluation_with_the_statistics_folded_in() {
    for (number, case) in cases().into_iter().enumerate() {
        let mut given = case_feeds(&case, number as u64);
        let evaluation = roles::evaluation(&case.program).unwrap();
        let expected = evaluate(&evaluation, &given).unwrap();
        let find = |name: &str| {
            let (bn, part) = name.split_once('.')?;
            let bn: Option<u16> = bn.strip_prefix("bn").and_then(|i| i.parse().ok());
            let array = match (bn, part) {
                (Some(i), "gamma") => &given.ports[&Port::Gamma(i)],
                (Some(i), "beta") => &given.ports[&Port::Beta(i)],
                (Some(i), "running_mean") => &given.ports[&Port::Mean(i)],
                (Some(i), "running_var") => &given.ports[&Port::Var(i)],
                _ => given.weights.get(name)?,
            };
            Some(array.iter().map(|&v| v as f32).collect())
        };
        let mut builder = GraphBuilder::new("folded");
        let shape = case.program.steps[0].shape;
        let dims = [shape.channels, shape.height, shape.width].map(|d| Dim::Fixed(i64::from(d)));
        let dims = [&[Dim::Batch], &dims[..]].concat();
        builder.input("x", ElemType::F32, &dims);
        let y = inference::append(&mut builder, &case.program, "x", "e00.o", EPSILON, &find).unwrap();
        builder.node("Identity", &[&y], &["y"], &[]);
        let rank = expected[0].1.ndim();
        let dims = [&[Dim::Batch][..], &["A", "B", "C"].map(Dim::Symbol)[..rank - 1]].concat();
        builder.output("y", ElemType::F32, &dims);
        let named = |port| vec![nasbn_export::ports::named(port)];
        let built = BuiltGraph {
            role: Role::Inference,
            lowering: Lowering::Portable,
            model: builder.finish(),
            inputs: named(Port::X),
            outputs: named(Port::Y),
        };
        check(&format!("{} folded", case.name), &run(built, &given, "", |_| false), &expected);

        // And with BatchNorms as they start, from the bundle's weights.
        for (port, array) in &mut given.ports {
            match port {
                Port::Gamma(_) => array.fill(1.0),
                Port::Beta(_) | Port::Mean(_) => array.fill(0.0),
                Port::Var(_) => array.fill(1.0 - f64::from(EPSILON)),
                _ => {}
            }
        }
        let expected = evaluate(&evaluation, &given).unwrap();
        let built = operator_graphs(&case.program, &case.program, "e00.o", false, EPSILON).unwrap();
        let built = built.into_iter().find(|b| b.role == Role::Inference).unwrap();
        check(&format!("{} initial", case.name), &run(built, &given, "e00.o", |_| false), &expected);
    }
}

#[test]
fn the_loss_graph_gives_the_numbers_of_the_reference() {
    let graph = roles::loss(7).unwrap();
    let mut given = feeds(&graph, 5, 3);
    given.ports.get_mut(&Port::Logits).unwrap().mapv_inplace(|v| 30.0 * v);
    round(&mut given);
    let found = run(operator_graphs::loss_graph(7).unwrap(), &given, "", |_| false);
    check("loss", &found, &evaluate(&graph, &given).unwrap());
}

#[test]
fn sums_concatenations_and_splits_are_what_they_say() {
    let mut numbers = operators_of_export::Numbers(5);
    let parts = [numbers.array(&[2, 3, 4, 5]), numbers.array(&[2, 1, 4, 5]), numbers.array(&[2, 3, 4, 5])];
    let mut given = Feeds::default();
    for (i, part) in (0..).zip(&parts) {
        given.ports.insert(Port::Part(i), part.clone());
    }
    let whole = ndarray::concatenate(ndarray::Axis(1), &[parts[0].view(), parts[1].view(), parts[2].view()]).unwrap();
    given.ports.insert(Port::Dy, whole.clone());
    round(&mut given);
    for built in operator_graphs::concat_graphs(&[3, 1, 3], 4, 5) {
        let fused = built.lowering == Lowering::Fused;
        let expected: Vec<(Port, ArrayD<f64>)> = match built.role {
            Role::Concat => vec![(Port::Y, whole.clone())],
            _ => (0..).zip(parts.clone()).map(|(i, part)| (Port::Part(i), part)).collect(),
        };
        let what = format!("{:?} {:?}", built.role, built.lowering);
        check(&what, &run(built, &given, "", |_| fused), &expected);
    }
    given.ports.insert(Port::Part(1), parts[2].clone());
    let sum = &parts[0] + &parts[2];
    check("sum", &run(operator_graphs::sum_graph(), &given, "", |_| false), &[(Port::Y, sum)]);
}

/// A BatchNorm whose input is far from zero: a variance taken as the mean of squares less the
/// square of the mean would lose all its digits.
#[test]
fn statistics_keep_their_digits_far_from_zero() {
    let case = cases().into_iter().find(|c| c.name.starts_with("identity 3x5x4")).unwrap();
    let mut given = case_feeds(&case, 11);
    given.ports.get_mut(&Port::X).unwrap().mapv_inplace(|v| 300.0 + v);
    round(&mut given);
    let graph = roles::forward(&case.program, MemoryMode::Lean, false).unwrap();
    let expected = evaluate(&graph, &given).unwrap();
    for lowering in [Lowering::Portable, Lowering::Fused] {
        let options = Options { name: "far", key: "", lowering, from_image: false, epsilon: EPSILON };
        let lowered = lower(&graph, options).unwrap();
        let built = BuiltGraph {
            role: Role::Forward(MemoryMode::Lean),
            lowering,
            model: lowered.model,
            inputs: lowered.inputs,
            outputs: lowered.outputs,
        };
        let found = run(built, &given, "", |_| lowering == Lowering::Fused);
        let var = |outputs: &[(Port, ArrayD<f64>)]| outputs.iter().find(|(p, _)| *p == Port::Var(0)).unwrap().1.clone();
        // The mean itself is rounded to 24 bits of 300, which the variance feels in the second order only.
        let error = error(&var(&found), &var(&expected));
        assert!(error < CLOSE, "{lowering:?}: variance off by {error:e}");
    }
}

/// The extents that a graph states are those that the reference has.
#[test]
fn stated_extents_are_true() {
    for case in cases() {
        let graph = roles::backward(&case.program, MemoryMode::Lean, false).unwrap();
        let given = case_feeds(&case, 1);
        for ((_, value), (_, array)) in graph.outputs().iter().zip(evaluate(&graph, &given).unwrap()) {
            let dims: &Dims = graph.dims(*value).unwrap();
            assert_eq!(dims.sizes(case.batch), array.shape());
        }
    }
}
