//! Derived gradients against central differences, and the backward graphs against both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod operators;

use nasbn_export::{
    autodiff::differentiate,
    ir::{Dims, Graph, Op, Value, Window},
    reference::{Feeds, evaluate},
    roles,
};
use nasbn_models::{
    Shape,
    manifest::{MemoryMode, Port},
};
use ndarray::{ArrayD, Axis};
use operators::{Case, DIFFERENCES, EXACT, Numbers, STEP, cases, distance, feed, feeds};

/// `sum dy . y`, whose gradients a seed of `dy` gives.
fn weighted(outputs: &[(Port, ArrayD<f64>)], dy: &ArrayD<f64>) -> f64 {
    let y = &outputs.iter().find(|(port, _)| *port == Port::Y).unwrap().1;
    (y * dy).sum()
}

/// Central differences of `sum dy . y` of a graph with respect to one of its inputs.
fn differences(graph: &Graph, feeds: &Feeds, dy: &ArrayD<f64>, port: Port) -> ArrayD<f64> {
    let mut gradient = feeds.ports[&port].clone();
    for i in 0..gradient.len() {
        let at = |offset: f64| {
            let mut feeds = feeds.clone();
            feeds.ports.get_mut(&port).unwrap().as_slice_mut().unwrap()[i] += offset;
            weighted(&evaluate(graph, &feeds).unwrap(), dy)
        };
        gradient.as_slice_mut().unwrap()[i] = (at(STEP) - at(-STEP)) / (2.0 * STEP);
    }
    gradient
}

/// Checks the rule of one primitive: `y = op(inputs)` with `dy` random.
fn check_rule(op: Op, inputs: &[(Port, Dims)], weights: &[Dims], seed: u64) {
    let mut graph = Graph::new();
    let mut values: Vec<Value> = inputs.iter().map(|(p, d)| graph.leaf(Op::Input(*p), d.clone())).collect();
    let wrt: Vec<Value> = values.iter().copied().filter(|&v| *graph.dims(v).unwrap() != Dims::Samples).collect();
    for (i, dims) in weights.iter().enumerate() {
        values.push(graph.leaf(Op::Weight(format!("w{i}")), dims.clone()));
    }
    let y = graph.apply(op.clone(), &values).unwrap();
    graph.output(Port::Y, y);
    let forward = graph.clone();
    let dims = graph.dims(y).unwrap().clone();
    let dy = graph.leaf(Op::Input(Port::Dy), dims);
    let gradients = differentiate(&mut graph, y, dy, &wrt).unwrap();
    let mut given = feeds(&graph, 3, seed);
    // Away from the kink of ReLU.
    for array in given.ports.values_mut() {
        array.mapv_inplace(|v| if v.abs() < 1e-2 { v + 0.05 } else { v });
    }
    let ports: Vec<Port> = inputs.iter().filter(|(_, d)| *d != Dims::Samples).map(|(p, _)| *p).collect();
    let mut backward = graph;
    for (&port, gradient) in ports.iter().zip(&gradients) {
        backward.output(port, gradient.unwrap());
    }
    let derived = evaluate(&backward, &given).unwrap();
    for port in ports {
        let expected = differences(&forward, &given, &given.ports[&Port::Dy].clone(), port);
        let found = &derived.iter().rev().find(|(p, _)| *p == port).unwrap().1;
        let error = distance(found, &expected);
        assert!(error < DIFFERENCES, "{} {port:?}: {error:e}", op.name());
    }
}

#[test]
fn every_primitive_follows_central_differences() {
    let image = |c, h, w| Dims::Image(Shape::new(c, h, w));
    let x = |d: Dims| (Port::X, d);
    let mut seed = 0;
    let mut check = |op: Op, inputs: &[(Port, Dims)], weights: &[Dims]| {
        seed += 1;
        check_rule(op, inputs, weights, seed);
    };
    for kernel in [1, 3, 5, 7] {
        for stride in [1, 2, 3] {
            let window = Window { kernel, stride };
            for (height, width) in [(7, 5), (4, 6)] {
                let full = Dims::Fixed(vec![2, 3, kernel, kernel]);
                check(Op::Conv { window, groups: 1 }, &[x(image(3, height, width))], std::slice::from_ref(&full));
                check(Op::Conv { window, groups: 1 }, &[x(image(3, height, width))], &[full, Dims::vector(2)]);
                let depthwise = Dims::Fixed(vec![3, 1, kernel, kernel]);
                check(Op::Conv { window, groups: 3 }, &[x(image(3, height, width))], &[depthwise]);
                check(Op::AvgPool(window), &[x(image(3, height, width))], &[]);
            }
        }
    }
    for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (5, 3)] {
        let window = Window { kernel, stride };
        // Groups, channels of a group of x, channels of y.
        for (groups, per_group, out) in [(2, 3, 4), (3, 2, 6), (4, 1, 8)] {
            let weight = Dims::Fixed(vec![out, per_group, kernel, kernel]);
            check(Op::Conv { window, groups }, &[x(image(groups * per_group, 5, 4))], std::slice::from_ref(&weight));
            let biased = [weight, Dims::vector(out)];
            check(Op::Conv { window, groups }, &[x(image(groups * per_group, 5, 4))], &biased);
        }
    }
    for groups in [1, 2, 3, 6] {
        check(Op::ChannelShuffle { groups }, &[x(image(6, 2, 3))], &[]);
    }
    let bn = [x(image(3, 5, 4)), (Port::Gamma(0), Dims::vector(3)), (Port::Beta(0), Dims::vector(3))];
    check(Op::BatchNormTrain { relu: false }, &bn, &[]);
    check(Op::Relu, &[x(image(3, 5, 4))], &[]);
    check(Op::Sigmoid, &[x(image(3, 5, 4))], &[]);
    check(Op::Add, &[x(image(3, 5, 4)), (Port::Part(0), image(3, 5, 4))], &[]);
    check(Op::Mul, &[x(image(3, 5, 4)), (Port::Part(0), image(3, 5, 4))], &[]);
    check(Op::Mul, &[x(image(3, 5, 4)), (Port::Part(0), image(3, 1, 1))], &[]);
    check(Op::GlobalAvgPool, &[x(image(3, 5, 4))], &[]);
    check(Op::Flatten, &[x(image(3, 1, 1))], &[]);
    check(Op::Unflatten, &[x(Dims::Features(3))], &[]);
    check(Op::Linear, &[x(Dims::Features(5))], &[Dims::Fixed(vec![4, 5]), Dims::vector(4)]);
    check(Op::SoftmaxCrossEntropy, &[(Port::Logits, Dims::Features(4)), (Port::Labels, Dims::Samples)], &[]);
}

#[test]
fn groups_see_their_own_channels_and_a_shuffle_mixes_them() {
    let mut graph = Graph::new();
    let x = graph.leaf(Op::Input(Port::X), Dims::Image(Shape::new(6, 1, 1)));
    let w = graph.leaf(Op::Weight("w".into()), Dims::Fixed(vec![6, 3, 1, 1]));
    let window = Window { kernel: 1, stride: 1 };
    let y = graph.apply(Op::Conv { window, groups: 2 }, &[x, w]).unwrap();
    let shuffled = graph.apply(Op::ChannelShuffle { groups: 2 }, &[x]).unwrap();
    graph.output(Port::Y, y);
    graph.output(Port::Part(0), shuffled);
    let mut given = feeds(&graph, 1, 1);
    let channels: Vec<f64> = (1..=6).map(f64::from).collect();
    given.ports.insert(Port::X, ArrayD::from_shape_vec(vec![1, 6, 1, 1], channels).unwrap());
    given.weights.get_mut("w").unwrap().fill(1.0);
    let outputs = evaluate(&graph, &given).unwrap();
    let values = |i: usize| outputs[i].1.iter().copied().collect::<Vec<f64>>();
    // 1 + 2 + 3 and 4 + 5 + 6; PyTorch's view(2, 3), transpose, view(6).
    assert_eq!(values(0), [6.0, 6.0, 6.0, 15.0, 15.0, 15.0]);
    assert_eq!(values(1), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    // What groups do not divide is no graph.
    for groups in [0, 4, 5, 12] {
        assert!(graph.apply(Op::ChannelShuffle { groups }, &[x]).is_err(), "{groups}");
        assert!(graph.apply(Op::Conv { window, groups }, &[x, w]).is_err(), "{groups}");
    }
}

#[test]
fn gradients_of_frozen_weights_and_of_gradients_are_refused() {
    let mut graph = Graph::new();
    let x = graph.leaf(Op::Input(Port::X), Dims::Features(3));
    let w = graph.leaf(Op::Weight("w".into()), Dims::Fixed(vec![2, 3]));
    let b = graph.leaf(Op::Weight("b".into()), Dims::vector(2));
    let y = graph.apply(Op::Linear, &[x, w, b]).unwrap();
    let dy = graph.leaf(Op::Input(Port::Dy), Dims::Features(2));
    assert!(differentiate(&mut graph.clone(), y, dy, &[w]).unwrap_err().to_string().contains("frozen"));
    let dx = differentiate(&mut graph, y, dy, &[x]).unwrap()[0].unwrap();
    assert!(differentiate(&mut graph, dx, x, &[dy]).is_err());
}

/// The forward graph of a case with the inputs of every ReLU as further outputs.
fn with_kinks(forward: &Graph) -> Graph {
    let mut graph = forward.clone();
    let relus: Vec<Value> = forward.nodes().iter().filter(|n| n.op == Op::Relu).map(|n| n.inputs[0]).collect();
    for (i, value) in (0..).zip(relus) {
        graph.output(Port::Part(i), value);
    }
    graph
}

/// Feeds for a case whose ReLUs all stay further than `1e-3` from their kink.
fn smooth_feeds(case: &Case, forward: &Graph) -> Feeds {
    let graph = with_kinks(forward);
    (0..500)
        .map(|seed| feeds(forward, case.batch, seed))
        .find(|feeds| {
            let outputs = evaluate(&graph, feeds).unwrap();
            let kinks = outputs.iter().filter(|(port, _)| matches!(port, Port::Part(_)));
            kinks.flat_map(|(_, a)| a.iter()).all(|v| v.abs() > 1e-3)
        })
        .expect("a seed away from the kinks")
}

#[test]
fn backward_graphs_of_operators_follow_central_differences_in_both_memory_modes() {
    for case in cases() {
        let lean = roles::forward(&case.program, MemoryMode::Lean, false).unwrap();
        let mut given = smooth_feeds(&case, &lean);
        let ports: Vec<Port> = lean.inputs().into_iter().map(|(p, _)| p).collect();
        let graphs = [MemoryMode::Fast, MemoryMode::Lean].map(|memory| {
            let forward = roles::forward(&case.program, memory, false).unwrap();
            (forward, roles::backward(&case.program, memory, false).unwrap())
        });
        feed(&graphs[1].1, case.batch, &mut Numbers(7), &mut given);
        let dy = given.ports[&Port::Dy].clone();
        let mut derived = Vec::new();
        for (forward, backward) in &graphs {
            let mut given = given.clone();
            given.ports.retain(|p, _| !matches!(p, Port::Mean(_) | Port::Var(_) | Port::Saved(_)));
            for (port, value) in evaluate(forward, &given).unwrap() {
                given.ports.insert(port, value);
            }
            derived.push(evaluate(backward, &given).unwrap());
        }
        for ((port, fast), (_, lean)) in derived[0].iter().zip(&derived[1]) {
            let error = distance(fast, lean);
            assert!(error < EXACT, "{} {port:?}: fast and lean differ by {error:e}", case.name);
        }
        for port in ports {
            let of = match port {
                Port::X => Port::Dx,
                Port::Gamma(i) => Port::DGamma(i),
                Port::Beta(i) => Port::DBeta(i),
                other => panic!("{other:?} is no input of a forward graph"),
            };
            let expected = differences(&lean, &given, &dy, port);
            let found = &derived[0].iter().find(|(p, _)| *p == of).unwrap().1;
            let error = distance(found, &expected);
            assert!(error < DIFFERENCES, "{} {of:?}: {error:e}", case.name);
        }
    }
}

/// Central differences of `sum dy . y` of every sample with respect to a parameter that the samples share: a row each.
fn sample_differences(graph: &Graph, feeds: &Feeds, dy: &ArrayD<f64>, port: Port) -> ArrayD<f64> {
    let (batch, length) = (dy.shape()[0], feeds.ports[&port].len());
    let mut rows = ArrayD::zeros(vec![batch, length]);
    for i in 0..length {
        let at = |offset: f64| {
            let mut feeds = feeds.clone();
            feeds.ports.get_mut(&port).unwrap().as_slice_mut().unwrap()[i] += offset;
            let product = &evaluate(graph, &feeds).unwrap()[0].1 * dy;
            product.axis_iter(Axis(0)).map(|sample| sample.sum()).collect::<Vec<f64>>()
        };
        for (n, (up, down)) in at(STEP).into_iter().zip(at(-STEP)).enumerate() {
            rows[[n, i]] = (up - down) / (2.0 * STEP);
        }
    }
    rows
}

/// With constant statistics, against central differences: of x as it is, of gamma and beta a row a sample.
fn check_samples(what: &str, forward: &Graph, jacobian: &Graph, given: &Feeds) {
    let dy = &given.ports[&Port::Dy];
    for (port, found) in evaluate(jacobian, given).unwrap() {
        let expected = match port {
            Port::Dx => differences(forward, given, dy, Port::X),
            Port::SampleDGamma(i) => sample_differences(forward, given, dy, Port::Gamma(i)),
            Port::SampleDBeta(i) => sample_differences(forward, given, dy, Port::Beta(i)),
            other => panic!("{other:?} is no output of a Jacobian graph"),
        };
        let error = distance(&found, &expected);
        assert!(error < DIFFERENCES, "{what} {port:?}: {error:e}");
    }
}

#[test]
fn a_batch_norm_with_given_statistics_follows_central_differences_sample_by_sample() {
    let mut graph = Graph::new();
    let vector = Dims::vector(3);
    let x = graph.leaf(Op::Input(Port::X), Dims::Image(Shape::new(3, 5, 4)));
    let ports = [Port::Gamma(0), Port::Beta(0), Port::Mean(0), Port::Var(0)];
    let [gamma, beta, mean, var] = ports.map(|port| graph.leaf(Op::Input(port), vector.clone()));
    let y = graph.apply(Op::BatchNormApply { relu: false }, &[x, gamma, beta, mean, var]).unwrap();
    graph.output(Port::Y, y);
    let mut jacobian = graph.clone();
    jacobian.clear_outputs();
    let dy = jacobian.leaf(Op::Input(Port::Dy), Dims::Image(Shape::new(3, 5, 4)));
    assert!(differentiate(&mut jacobian.clone(), y, dy, &[var]).unwrap_err().to_string().contains("constants"));
    let gradients = differentiate(&mut jacobian, y, dy, &[x, gamma, beta]).unwrap();
    for (port, gradient) in [Port::Dx, Port::SampleDGamma(0), Port::SampleDBeta(0)].into_iter().zip(gradients) {
        jacobian.output(port, gradient.unwrap());
    }
    check_samples("BatchNormApply", &graph, &jacobian, &feeds(&jacobian, 3, 21));
}

#[test]
fn jacobian_graphs_of_operators_follow_central_differences_sample_by_sample() {
    for case in cases() {
        let forward = roles::forward(&case.program, MemoryMode::Fast, false).unwrap();
        let mut given = smooth_feeds(&case, &roles::forward(&case.program, MemoryMode::Lean, false).unwrap());
        given.ports.retain(|p, _| !matches!(p, Port::Mean(_) | Port::Var(_)));
        for (port, value) in evaluate(&forward, &given).unwrap() {
            given.ports.insert(port, value);
        }
        let jacobian = roles::jacobian(&case.program, false).unwrap();
        feed(&jacobian, case.batch, &mut Numbers(7), &mut given);
        check_samples(&case.name, &roles::evaluation(&case.program).unwrap(), &jacobian, &given);
    }
}

#[test]
fn graphs_of_indicators_take_what_a_fast_pass_keeps() {
    for case in cases() {
        for from_image in [false, true] {
            let ports = |graph: &Graph| graph.inputs().into_iter().map(|(p, _)| p).collect::<Vec<_>>();
            let backward = roles::backward(&case.program, MemoryMode::Fast, from_image).unwrap();
            let jacobian = roles::jacobian(&case.program, from_image).unwrap();
            assert_eq!(ports(&jacobian), ports(&backward), "{} image {from_image}", case.name);
            let signs = roles::signs(&case.program).unwrap();
            assert_eq!(signs.is_some(), case.program.rectified().any(|rectified| rectified));
            let kept = |port: &Port| matches!(port, Port::X | Port::Saved(_));
            for port in signs.iter().flat_map(ports).filter(kept) {
                assert!(ports(&backward).contains(&port), "{}: {port:?} is not kept", case.name);
            }
        }
    }
}

#[test]
fn signs_agree_where_both_are_positive_or_both_are_not() {
    let program = cases().into_iter().find(|c| c.name.starts_with("conv3 ")).unwrap().program;
    let graph = roles::signs(&program).unwrap().unwrap();
    let mut given = feeds(&graph, 2, 5);
    let (gamma, beta) = (given.ports[&Port::Gamma(0)].clone(), given.ports[&Port::Beta(0)].clone());
    let (mean, var) = (given.ports[&Port::Mean(0)].clone(), given.ports[&Port::Var(0)].clone());
    // An activation of exactly zero counts as not positive.
    given.ports.get_mut(&Port::Beta(0)).unwrap()[0] = 0.0;
    given.ports.get_mut(&Port::Saved(0)).unwrap()[[1, 0, 1, 1]] = mean[0];
    let x = &given.ports[&Port::Saved(0)];
    let &[2, channels, height, width] = x.shape() else { panic!("{:?}", x.shape()) };
    let mut equal = 0;
    for c in 0..channels {
        for (h, w) in (0..height).flat_map(|h| (0..width).map(move |w| (h, w))) {
            let beta = if c == 0 { 0.0 } else { beta[c] };
            let y = |n: usize| gamma[c] * (x[[n, c, h, w]] - mean[c]) / (var[c] + given.epsilon).sqrt() + beta;
            equal += usize::from((y(0) > 0.0) == (y(1) > 0.0));
        }
    }
    let all = (channels * height * width) as f64;
    assert_eq!(program.relu_units() as f64, all);
    let found = &evaluate(&graph, &given).unwrap()[0].1;
    let expected = [all, equal as f64, equal as f64, all];
    assert_eq!(found.iter().copied().collect::<Vec<_>>(), expected);
}

#[test]
fn graphs_ask_only_for_what_they_use() {
    let ports = |graph: &Graph| graph.inputs().into_iter().map(|(p, _)| p).collect::<Vec<_>>();
    let outputs = |graph: &Graph| graph.outputs().iter().map(|(p, _)| *p).collect::<Vec<_>>();
    let program = cases().into_iter().find(|c| c.name.starts_with("mb2k3 3x5x5")).unwrap().program;
    use Port::{Beta, DBeta, DGamma, Dx, Dy, Gamma, Mean, Saved, Var, X, Y};
    let fast = roles::backward(&program, MemoryMode::Fast, false).unwrap();
    // The last BatchNorm has no ReLU behind it whose mask would need its beta.
    let bns = |i| [Gamma(i), Beta(i), Mean(i), Var(i)];
    let statistics = (0..3).flat_map(bns).filter(|&p| p != Beta(2)).collect::<Vec<_>>();
    assert_eq!(ports(&fast), [vec![Dy, Saved(0), Saved(1), Saved(2)], statistics.clone()].concat());
    let gradients: Vec<Port> = (0..3).flat_map(|i| [DGamma(i), DBeta(i)]).collect();
    assert_eq!(outputs(&fast), [vec![Dx], gradients.clone()].concat());
    let lean = roles::backward(&program, MemoryMode::Lean, true).unwrap();
    assert_eq!(ports(&lean), [vec![X, Dy], statistics].concat());
    assert_eq!(outputs(&lean), gradients);
    let forward = roles::forward(&program, MemoryMode::Fast, false).unwrap();
    assert_eq!(outputs(&forward)[..4], [Y, Saved(0), Saved(1), Saved(2)]);

    let fair = cases().into_iter().find(|c| c.name.starts_with("identity 3x5x4")).unwrap().program;
    let fast = roles::backward(&fair, MemoryMode::Fast, false).unwrap();
    assert_eq!(ports(&fast)[..2], [X, Dy], "the input of the only BatchNorm is x itself");
    let forward = roles::forward(&fair, MemoryMode::Fast, false).unwrap();
    assert_eq!(outputs(&forward), [Y, Mean(0), Var(0)]);
}

#[test]
fn the_loss_and_its_gradient_are_those_of_the_formula() {
    let graph = roles::loss(3).unwrap();
    let given = feeds(&graph, 3, 1);
    let outputs = evaluate(&graph, &given).unwrap();
    assert_eq!(outputs.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [Port::Loss, Port::SampleLoss, Port::DLogits]);
    let logits = &given.ports[&Port::Logits];
    let by_hand = -(logits[[1, 1]].exp() / (0..3).map(|k| logits[[1, k]].exp()).sum::<f64>()).ln();
    assert!((outputs[1].1[[1]] - by_hand).abs() < EXACT);
    assert!((outputs[0].1.sum() - outputs[1].1.mean().unwrap()).abs() < EXACT);
    assert!(outputs[2].1.sum().abs() < EXACT, "probabilities and labels both sum to one");
}

#[test]
fn what_is_fed_is_checked() {
    let graph = roles::loss(3).unwrap();
    let mut given = feeds(&graph, 3, 1);
    given.ports.insert(Port::Logits, ArrayD::zeros(vec![3, 4]));
    assert!(evaluate(&graph, &given).unwrap_err().to_string().contains("logits must have the shape [3, 3]"));
    given.ports.remove(&Port::Logits);
    assert!(evaluate(&graph, &given).unwrap_err().to_string().contains("not fed logits"));
}
