//! Every ONNX graph of an operator, of a node and of the network.

use nasbn_models::{
    Primitive, Program,
    manifest::{Lowering, MemoryMode, NamedPort, Port, Role},
};

use crate::{
    ir::GraphError,
    lower::{self, Lowered, Options, inference},
    onnx::{Dim, ElemType, GraphBuilder, proto::ModelProto},
    ports, roles,
};

/// A graph of the bundle, before its weights are tied to the weights' file.
#[derive(Clone, Debug)]
pub struct BuiltGraph {
    /// What it computes.
    pub role: Role,
    /// What it is made of.
    pub lowering: Lowering,
    /// The model.
    pub model: ModelProto,
    /// Inputs in order.
    pub inputs: Vec<NamedPort>,
    /// Outputs in order.
    pub outputs: Vec<NamedPort>,
}

impl BuiltGraph {
    fn new(role: Role, lowering: Lowering, lowered: Lowered) -> Self {
        let Lowered { model, inputs, outputs } = lowered;
        Self { role, lowering, model, inputs, outputs }
    }
}

/// Whether an operator has no graphs: it is absent, or passes its input on.
pub fn needs_no_graph(program: &Program) -> bool {
    program.steps.iter().all(|step| step.primitive == Primitive::Input)
}

/// Every graph of an operator on an edge: of `program`, which is trained, and for [`Role::Inference`] of
/// `deployed`, which is what remains of it in a network of its own (no BatchNorm for fairness alone).
/// `key` is the prefix of its weights, `from_image` says that the edge starts at the image, whose
/// gradient nobody needs. Programs that compute nothing have no graphs.
///
/// # Errors
/// Never for programs of [`Program::build`].
pub fn operator_graphs(
    program: &Program,
    deployed: &Program,
    key: &str,
    from_image: bool,
    epsilon: f32,
) -> Result<Vec<BuiltGraph>, GraphError> {
    let mut built = Vec::new();
    if !needs_no_graph(program) {
        for memory in [MemoryMode::Fast, MemoryMode::Lean] {
            let forward = roles::forward(program, memory, from_image)?;
            let backward = roles::backward(program, memory, from_image)?;
            for lowering in [Lowering::Portable, Lowering::Fused] {
                for (role, graph) in [(Role::Forward(memory), &forward), (Role::Backward(memory), &backward)] {
                    let name = format!("{key}.{}", role_name(role));
                    let options = Options { name: &name, key, lowering, from_image, epsilon };
                    built.push(BuiltGraph::new(role, lowering, lower::lower(graph, options)?));
                }
            }
        }
        let mut indicators = vec![(Role::Jacobian, roles::jacobian(program, from_image)?)];
        indicators.extend(roles::signs(program)?.map(|signs| (Role::Signs, signs)));
        for (role, graph) in indicators {
            for lowering in [Lowering::Portable, Lowering::Fused] {
                let name = format!("{key}.{}", role_name(role));
                let options = Options { name: &name, key, lowering, from_image, epsilon };
                built.push(BuiltGraph::new(role, lowering, lower::lower(&graph, options)?));
            }
        }
        let name = format!("{key}.{}", role_name(Role::Evaluate));
        let evaluation = roles::evaluation(program)?;
        for lowering in [Lowering::Portable, Lowering::Fused] {
            let options = Options { name: &name, key, lowering, from_image, epsilon };
            built.push(BuiltGraph::new(Role::Evaluate, lowering, lower::lower(&evaluation, options)?));
        }
        if let Some(graph) = roles::synflow(program)? {
            let name = format!("{key}.{}", role_name(Role::SynFlow));
            let options = Options { name: &name, key, lowering: Lowering::Portable, from_image, epsilon };
            let lowered = lower::lower_magnitudes(&graph, options)?;
            built.push(BuiltGraph::new(Role::SynFlow, Lowering::Portable, lowered));
        }
    }
    if !needs_no_graph(deployed) {
        let name = format!("{key}.{}", role_name(Role::Inference));
        let lowered = inference::lower(deployed, &name, key, epsilon)?;
        built.push(BuiltGraph::new(Role::Inference, Lowering::Portable, lowered));
    }
    Ok(built)
}

/// Name of a role in graph and file names.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Forward(MemoryMode::Fast) => "forward-fast",
        Role::Forward(MemoryMode::Lean) => "forward-lean",
        Role::Backward(MemoryMode::Fast) => "backward-fast",
        Role::Backward(MemoryMode::Lean) => "backward-lean",
        Role::Evaluate => "evaluate",
        Role::Inference => "inference",
        Role::Loss => "loss",
        Role::Sum => "sum",
        Role::Concat => "concat",
        Role::Split => "split",
        Role::Jacobian => "jacobian",
        Role::Signs => "signs",
        Role::SynFlow => "synflow",
    }
}

/// Mean softmax cross-entropy of logits `[N, classes]` against labels `[N]` (i64), the loss of every
/// sample, and the gradient of the mean.
///
/// # Errors
/// Never for at least one class.
pub fn loss_graph(classes: u32) -> Result<BuiltGraph, GraphError> {
    let options = Options { name: "loss", key: "", lowering: Lowering::Portable, from_image: false, epsilon: 0.0 };
    Ok(BuiltGraph::new(Role::Loss, Lowering::Portable, lower::lower(&roles::loss(classes)?, options)?))
}

/// Sum of two tensors of one shape, in any layout.
pub fn sum_graph() -> BuiltGraph {
    let mut builder = GraphBuilder::new("sum");
    let dims = [Dim::Batch, Dim::Symbol("A"), Dim::Symbol("B"), Dim::Symbol("C")];
    let (parts, output) = (vec![ports::named(Port::Part(0)), ports::named(Port::Part(1))], ports::named(Port::Y));
    for part in &parts {
        builder.input(&part.name, ElemType::F32, &dims);
    }
    builder.node("Add", &[&parts[0].name, &parts[1].name], &[&output.name], &[]);
    builder.output(&output.name, ElemType::F32, &dims);
    let lowering = Lowering::Portable;
    BuiltGraph { role: Role::Sum, lowering, model: builder.finish(), inputs: parts, outputs: vec![output] }
}

/// Concatenation along channels of tensors with these channels and one height and width, and the
/// split of its gradient, in both lowerings.
pub fn concat_graphs(channels: &[u32], height: u32, width: u32) -> Vec<BuiltGraph> {
    let mut built = Vec::new();
    for lowering in [Lowering::Portable, Lowering::Fused] {
        let fixed = |extent: u32| Dim::Fixed(i64::from(extent));
        let dims = |channels: u32| match lowering {
            Lowering::Portable => [Dim::Batch, fixed(channels), fixed(height), fixed(width)],
            Lowering::Fused => [Dim::Batch, fixed(height), fixed(width), fixed(channels)],
        };
        let axis: i64 = if lowering == Lowering::Portable { 1 } else { 3 };
        let parts: Vec<NamedPort> = (0..channels.len() as u16).map(|i| ports::named(Port::Part(i))).collect();
        let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        let all = channels.iter().sum();

        let mut concat = GraphBuilder::new("concat");
        for (name, &channels) in names.iter().zip(channels) {
            concat.input(name, ElemType::F32, &dims(channels));
        }
        let y = ports::named(Port::Y);
        concat.node("Concat", &names, &[&y.name], &[("axis", axis.into())]);
        concat.output(&y.name, ElemType::F32, &dims(all));
        let (inputs, outputs) = (parts.clone(), vec![y]);
        built.push(BuiltGraph { role: Role::Concat, lowering, model: concat.finish(), inputs, outputs });

        let mut split = GraphBuilder::new("split");
        let dy = ports::named(Port::Dy);
        split.input(&dy.name, ElemType::F32, &dims(all));
        let sizes: Vec<i64> = channels.iter().map(|&c| i64::from(c)).collect();
        split.initializer_i64("sizes", &[sizes.len() as i64], &sizes);
        split.node("Split", &[&dy.name, "sizes"], &names, &[("axis", axis.into())]);
        for (name, &channels) in names.iter().zip(channels) {
            split.output(name, ElemType::F32, &dims(channels));
        }
        built.push(BuiltGraph { role: Role::Split, lowering, model: split.finish(), inputs: vec![dy], outputs: parts });
    }
    built
}
