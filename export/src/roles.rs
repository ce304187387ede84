//! The graphs of an operator before lowering: forward, backward in two memory modes, evaluation, Jacobian, signs,
//! and the linear form that SynFlow looks at.
//!
//! A backward graph is the forward graph with its gradients, cut at the values that are at hand
//! when it runs. What lies behind the cut is left out; what is not at hand is computed again, with
//! the statistics that the forward pass found (so a BatchNorm costs one pass, not three).

use std::collections::HashMap;

use nasbn_models::{
    Program,
    manifest::{MemoryMode, Port},
};

use crate::{
    autodiff::differentiate,
    ir::{BnValues, Dims, Forward, Graph, GraphError, Op, Rewriter, Value},
    ports,
};

/// The forward graph that keeps what [`backward`] with the same arguments needs.
///
/// # Errors
/// If the program cannot be built or differentiated; never for one of [`Program::build`].
pub fn forward(program: &Program, memory: MemoryMode, from_image: bool) -> Result<Graph, GraphError> {
    let needed: Vec<Port> = backward(program, memory, from_image)?.inputs().into_iter().map(|(p, _)| p).collect();
    let Forward { mut graph, y, batch_norms, .. } = Graph::from_program(program)?;
    graph.output(Port::Y, y);
    for (i, bn) in (0..).zip(&batch_norms) {
        if needed.contains(&Port::Saved(i)) {
            graph.output(Port::Saved(i), bn.x);
        }
    }
    for (i, bn) in (0..).zip(&batch_norms) {
        graph.output(Port::Mean(i), bn.y.sibling(1));
        graph.output(Port::Var(i), bn.y.sibling(2));
    }
    Rewriter::new(&graph, &|_, _| Ok(None)).finish()
}

/// The gradients with respect to input, gammas and betas. An edge from the image has no gradient of
/// its input, unless there is nothing else to compute.
///
/// # Errors
/// See [`forward`].
pub fn backward(program: &Program, memory: MemoryMode, from_image: bool) -> Result<Graph, GraphError> {
    let Forward { mut graph, x, y, batch_norms } = Graph::from_program(program)?;
    let ports = |i| [Port::DGamma(i), Port::DBeta(i)];
    gradients(&mut graph, x, y, &batch_norms, from_image, ports)?;
    let at_hand = match memory {
        MemoryMode::Fast => saved(x, &batch_norms),
        MemoryMode::Lean => HashMap::new(),
    };
    with_statistics(&graph, &at_hand)
}

/// The rows of the Jacobian: for every sample the gradient of `dy . y` with respect to its input (none for an edge from
/// the image, as in [`backward`]) and, `[N, C]` each, to gammas and betas. Statistics are given and held constant, so
/// that samples do not meet. Takes what [`forward`] keeps in [`MemoryMode::Fast`].
///
/// # Errors
/// See [`forward`].
pub fn jacobian(program: &Program, from_image: bool) -> Result<Graph, GraphError> {
    let mut graph = evaluation(program)?;
    let Some(&(_, y)) = graph.outputs().first() else {
        return Err(GraphError::Shape { op: "Program", problem: "it has no output".into() });
    };
    graph.clear_outputs();
    let inputs: HashMap<Port, Value> = graph.inputs().into_iter().collect();
    let input = |port| inputs.get(&port).copied().ok_or_else(|| GraphError::Unfed(ports::name(port)));
    let norm = |(i, node): (u16, usize)| {
        let (x, y) = (graph.nodes()[node].inputs[0], Value { node, output: 0 });
        Ok(BnValues { x, gamma: input(Port::Gamma(i))?, beta: input(Port::Beta(i))?, y })
    };
    let norms = (0..).zip(nodes_of(&graph, |op| matches!(op, Op::BatchNormApply { .. })));
    let batch_norms = norms.map(norm).collect::<Result<Vec<BnValues>, GraphError>>()?;
    let x = input(Port::X)?;
    let ports = |i| [Port::SampleDGamma(i), Port::SampleDBeta(i)];
    gradients(&mut graph, x, y, &batch_norms, from_image, ports)?;
    with_statistics(&graph, &saved(x, &batch_norms))
}

/// Agreement of activation signs after every BatchNorm of the operator that is rectified
/// ([`Program::rectified`]), summed; `None` where there is none.
/// Statistics are given; takes what [`forward`] keeps in [`MemoryMode::Fast`].
///
/// # Errors
/// See [`forward`].
pub fn signs(program: &Program) -> Result<Option<Graph>, GraphError> {
    let Forward { mut graph, x, batch_norms, .. } = Graph::from_program(program)?;
    let mut total: Option<Value> = None;
    for (bn, _) in batch_norms.iter().zip(program.rectified()).filter(|(_, rectified)| *rectified) {
        let agreement = graph.apply(Op::SignAgreement, &[bn.y])?;
        total = Some(match total {
            None => agreement,
            Some(total) => graph.apply(Op::Add, &[total, agreement])?,
        });
    }
    let Some(total) = total else { return Ok(None) };
    graph.output(Port::Agreement, total);
    with_statistics(&graph, &saved(x, &batch_norms)).map(Some)
}

/// Makes the gradients of `dy . y` outputs of `graph`: of x (but see [`backward`]), and of every BatchNorm's gamma and
/// beta under the names that `ports` gives them.
fn gradients(
    graph: &mut Graph,
    x: Value,
    y: Value,
    batch_norms: &[BnValues],
    from_image: bool,
    ports: fn(u16) -> [Port; 2],
) -> Result<(), GraphError> {
    let dims = graph.dims(y)?.clone();
    let dy = graph.leaf(Op::Input(Port::Dy), dims);
    let mut wrt: Vec<(Port, Value)> = Vec::new();
    if !from_image || batch_norms.is_empty() {
        wrt.push((Port::Dx, x));
    }
    for (i, bn) in (0..).zip(batch_norms) {
        wrt.extend(ports(i).into_iter().zip([bn.gamma, bn.beta]));
    }
    wrt.sort_by_key(|(port, _)| ports::rank(*port));
    let values: Vec<Value> = wrt.iter().map(|(_, v)| *v).collect();
    let gradients = differentiate(graph, y, dy, &values)?;
    for ((port, _), gradient) in wrt.into_iter().zip(gradients) {
        let problem = "the output does not depend on a parameter";
        graph.output(port, gradient.ok_or(GraphError::NotDifferentiable { op: "Program", problem })?);
    }
    Ok(())
}

/// What is at hand where the inputs of BatchNorms were kept.
fn saved(x: Value, batch_norms: &[BnValues]) -> HashMap<Value, Port> {
    let mut saved = HashMap::new();
    for (i, bn) in (0..).zip(batch_norms) {
        if bn.x != x {
            saved.entry(bn.x).or_insert(Port::Saved(i));
        }
    }
    saved
}

/// Indices of the nodes with such a primitive, in order.
fn nodes_of(graph: &Graph, is: fn(&Op) -> bool) -> impl Iterator<Item = usize> {
    graph.nodes().iter().enumerate().filter(move |(_, n)| is(&n.op)).map(|(node, _)| node)
}

/// The forward graph with gamma, beta and statistics given.
///
/// # Errors
/// See [`forward`].
pub fn evaluation(program: &Program) -> Result<Graph, GraphError> {
    let Forward { mut graph, y, .. } = Graph::from_program(program)?;
    graph.output(Port::Y, y);
    with_statistics(&graph, &HashMap::new())
}

/// The same graph with mean and variance of every BatchNorm as inputs, and with the values of
/// `at_hand` as inputs too.
fn with_statistics(graph: &Graph, at_hand: &HashMap<Value, Port>) -> Result<Graph, GraphError> {
    let norms = nodes_of(graph, |op| matches!(op, Op::BatchNormTrain { .. }));
    let order: HashMap<usize, u16> = norms.zip(0..).collect();
    let rule = |rewriter: &mut Rewriter<'_>, value: Value| {
        let source = rewriter.source();
        if let Some(&port) = at_hand.get(&value) {
            return Ok(Some(rewriter.input(Op::Input(port), source.dims(value)?.clone())));
        }
        let Some(&bn) = order.get(&value.node) else { return Ok(None) };
        let channels = source.dims(Value { node: value.node, output: 1 })?.clone();
        let given = |rewriter: &mut Rewriter<'_>, port| rewriter.input(Op::Input(port), channels.clone());
        Ok(Some(match value.output {
            1 => given(rewriter, Port::Mean(bn)),
            2 => given(rewriter, Port::Var(bn)),
            _ => {
                let inputs = source.nodes()[value.node].inputs.iter();
                let mut inputs: Vec<Value> = inputs.map(|&v| rewriter.copy(v)).collect::<Result<_, _>>()?;
                inputs.push(given(rewriter, Port::Mean(bn)));
                inputs.push(given(rewriter, Port::Var(bn)));
                rewriter.apply(Op::BatchNormApply { relu: false }, &inputs)?
            }
        }))
    };
    Rewriter::new(graph, &rule).finish()
}

/// The operator as SynFlow sees it (Tanaka et al. 2020, equation 1; Abdelfattah et al. 2021): BatchNorms and
/// ReLUs hand their input on, gates are 1, and weights are to be taken by magnitude
/// ([`crate::lower::lower_magnitudes`]), so that it is linear in x and in each of its weights. From x and dy:
/// y, dx, and for every convolution and linear layer its output times its gradient, summed over pixels; the
/// sum of those is the layer's sum of `w dR/dw` (Euler's theorem). `None` if nothing but the input is left.
///
/// # Errors
/// See [`forward`].
pub fn synflow(program: &Program) -> Result<Option<Graph>, GraphError> {
    let Forward { mut graph, y, .. } = Graph::from_program(program)?;
    graph.output(Port::Y, y);
    let rule = |rewriter: &mut Rewriter<'_>, value: Value| {
        let source = rewriter.source();
        let node = &source.nodes()[value.node];
        let is_gate = |v: &Value| source.nodes()[v.node].op == Op::Sigmoid;
        let hands_on = match node.op {
            Op::BatchNormTrain { .. } | Op::Relu => true,
            Op::Mul => node.inputs.get(1).is_some_and(is_gate),
            _ => false,
        };
        match node.inputs.first() {
            Some(&input) if hands_on => rewriter.copy(input).map(Some),
            _ => Ok(None),
        }
    };
    let mut graph = Rewriter::new(&graph, &rule).finish()?;
    let inputs = graph.inputs();
    let (Some(&(_, x)), Some(&(_, y))) = (inputs.first(), graph.outputs().first()) else { return Ok(None) };
    if x == y {
        return Ok(None);
    }
    let layers = graph.nodes().iter().enumerate().filter(|(_, n)| matches!(n.op, Op::Conv { .. } | Op::Linear));
    let layers: Vec<Value> = layers.map(|(node, _)| Value { node, output: 0 }).collect();
    let dims = graph.dims(y)?.clone();
    let dy = graph.leaf(Op::Input(Port::Dy), dims);
    let wrt: Vec<Value> = [x].iter().chain(&layers).copied().collect();
    let gradients = differentiate(&mut graph, y, dy, &wrt)?;
    let problem = "the output does not depend on a layer";
    let missing = || GraphError::NotDifferentiable { op: "Program", problem };
    for (i, (layer, gradient)) in wrt.into_iter().zip(gradients).enumerate() {
        let gradient = gradient.ok_or_else(missing)?;
        if i == 0 {
            graph.output(Port::Dx, gradient);
            continue;
        }
        let flow = graph.apply(Op::Mul, &[layer, gradient])?;
        let is_image = matches!(graph.dims(flow)?, Dims::Image(_));
        let flow = if is_image { graph.apply(Op::SumPixels, &[flow])? } else { flow };
        graph.output(Port::Flow(i as u16 - 1), flow);
    }
    Ok(Some(graph))
}

/// Mean softmax cross-entropy over `classes`, the loss of every sample, and the gradient.
///
/// # Errors
/// Never for at least one class.
pub fn loss(classes: u32) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let logits = graph.leaf(Op::Input(Port::Logits), Dims::Features(classes));
    let labels = graph.leaf(Op::Input(Port::Labels), Dims::Samples);
    let one = graph.leaf(Op::One, Dims::scalar());
    let loss = graph.apply(Op::SoftmaxCrossEntropy, &[logits, labels])?;
    let gradient = differentiate(&mut graph, loss, one, &[logits])?;
    graph.output(Port::Loss, loss);
    graph.output(Port::SampleLoss, loss.sibling(1));
    if let [Some(dlogits)] = gradient[..] {
        graph.output(Port::DLogits, dlogits);
    }
    Ok(graph)
}
