//! What a path is, in words that training programs understand.

use nasbn_models::{Combine, Path, Primitive, Program, Selection, Supernet, cost::CostTable};
use serde_json::{Value, json};

use crate::weights::program_weights;

/// The definition of `path` that needs nothing else to be read: nodes, edges and their primitives
/// with weights' names, as in the parameters' file. Holds [`timm_arch_def`] as `timm` where there is one.
///
/// `params` are those of the network as it is to be trained and deployed, as in every table of costs; `onnx_params` also
/// count the fairness BatchNorms of operators that have none of their own, which the network's file keeps (before folding):
/// without them the inherited parameters do not give the accuracy that was measured.
pub fn definition(supernet: &Supernet, path: &Path) -> Value {
    let image = supernet.image();
    let nodes: Vec<Value> = supernet
        .nodes
        .iter()
        .map(|n| {
            let combine = if n.combine == Combine::Sum { "sum" } else { "concat" };
            json!({ "shape": [n.shape.channels, n.shape.height, n.shape.width], "combine": combine })
        })
        .collect();
    let edges: Vec<Value> = supernet
        .edges
        .iter()
        .enumerate()
        .map(|(e, edge)| {
            let operator = supernet.operator_on(edge, path);
            let program = supernet.program(e, operator).unwrap_or_default();
            json!({
                "from": edge.from,
                "to": edge.to,
                "operator": supernet.operators[usize::from(operator)].name,
                "steps": steps(&program, &supernet.key(e, operator)),
            })
        })
        .collect();
    json!({
        "format": "nasbn-network-1",
        "space": supernet.name,
        "path": supernet.format_path(path),
        "image": [image.channels, image.height, image.width],
        "classes": supernet.classes(),
        "params": CostTable::new(supernet).cost(path).params,
        "onnx_params": onnx_params(supernet, path),
        "nodes": nodes,
        "edges": edges,
        "timm": timm_arch_def(supernet, path),
    })
}

/// Weights, biases, gammas and betas of every operator of `path` with its fairness BatchNorm.
fn onnx_params(supernet: &Supernet, path: &Path) -> u64 {
    let edges = supernet.edges.iter().enumerate();
    let of_edge = |(e, edge)| {
        let program = supernet.program(e, supernet.operator_on(edge, path)).unwrap_or_default();
        let weights: u64 = program_weights(&program, "").iter().map(|w| w.dims.iter().product::<u64>()).sum();
        weights + program.batch_norms().map(|channels| 2 * u64::from(channels)).sum::<u64>()
    };
    edges.map(of_edge).sum()
}

/// Steps of a program; `inputs` are positions in the list, `parameters` the prefix of names.
fn steps(program: &Program, key: &str) -> Vec<Value> {
    let (mut convs, mut linears, mut bns) = (0, 0, 0);
    let mut numbered = |stem: &str| {
        let count = match stem {
            "conv" => &mut convs,
            "linear" => &mut linears,
            _ => &mut bns,
        };
        *count += 1;
        format!("{key}.{stem}{}", *count - 1)
    };
    let step = |step: &nasbn_models::Step| {
        let mut value = match step.primitive {
            Primitive::Input => json!({ "op": "input" }),
            Primitive::Conv { kernel, stride, groups, bias } => json!({
                "op": "conv", "kernel": kernel, "stride": stride, "padding": (kernel - 1) / 2, "groups": groups,
                "bias": bias, "parameters": numbered("conv"),
            }),
            Primitive::BatchNorm => json!({ "op": "batch_norm", "parameters": numbered("bn") }),
            Primitive::Relu => json!({ "op": "relu" }),
            Primitive::Sigmoid => json!({ "op": "sigmoid" }),
            Primitive::Add => json!({ "op": "add" }),
            Primitive::Mul => json!({ "op": "mul" }),
            Primitive::AvgPool { kernel, stride } => json!({
                "op": "avg_pool", "kernel": kernel, "stride": stride, "padding": (kernel - 1) / 2,
                "count_include_pad": false,
            }),
            Primitive::GlobalAvgPool => json!({ "op": "global_avg_pool" }),
            Primitive::ChannelShuffle { groups } => json!({ "op": "channel_shuffle", "groups": groups }),
            Primitive::Linear => json!({ "op": "linear", "parameters": numbered("linear") }),
        };
        value["inputs"] = json!(step.inputs.as_slice());
        value["shape"] = json!([step.shape.channels, step.shape.height, step.shape.width]);
        value
    };
    program.steps.iter().map(step).collect()
}

/// `path` as timm's `arch_def` (a list of stages, each a list of block strings; a stage begins where
/// the stride or the channels change), with the layers that timm keeps outside of it: `stem`, `head`.
/// Identity layers are left out. `None` unless the space is a chain and every operator chosen has a
/// timm block.
pub fn timm_arch_def(supernet: &Supernet, path: &Path) -> Option<Value> {
    let chain = supernet.edges.iter().enumerate().all(|(e, edge)| {
        usize::from(edge.from) == e && usize::from(edge.to) == e + 1 && supernet.nodes.len() == supernet.edges.len() + 1
    });
    if !chain || !supernet.contains(path) {
        return None;
    }
    let mut stages: Vec<Vec<String>> = Vec::new();
    let (mut stem, mut head): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut channels = None;
    for (e, edge) in supernet.edges.iter().enumerate() {
        let operator = &supernet.operators[usize::from(supernet.operator_on(edge, path))];
        let unchanged = edge.stride == 1 && supernet.nodes[usize::from(edge.from)].shape.channels == edge.channels;
        match (&operator.timm, edge.selection) {
            _ if unchanged && operator.form.is_identity() => {}
            (Some(block), _) => {
                if !head.is_empty() {
                    return None;
                }
                let block = block.replace("{s}", &edge.stride.to_string()).replace("{c}", &edge.channels.to_string());
                match stages.last_mut() {
                    Some(stage) if edge.stride == 1 && channels == Some(edge.channels) => stage.push(block),
                    _ => stages.push(vec![block]),
                }
                channels = Some(edge.channels);
            }
            (None, Selection::Fixed(_)) => {
                let program = supernet.program(e, supernet.operator_on(edge, path)).ok()?;
                let part = if stages.is_empty() && is_stem(supernet, e) { &mut stem } else { &mut head };
                part.push(json!({ "operator": operator.name, "steps": steps(&program, &supernet.key(e, supernet.operator_on(edge, path))) }));
            }
            _ => return None,
        }
    }
    let size = |parts: &[Value]| -> Option<u64> {
        let conv = parts.iter().flat_map(|p| p["steps"].as_array()).flatten().rfind(|s| s["op"] == "conv")?;
        conv["shape"][0].as_u64()
    };
    Some(json!({
        "arch_def": stages,
        "act_layer": "relu",
        "stem_size": size(&stem),
        "num_features": size(&head),
        "num_classes": supernet.classes(),
        "stem": stem,
        "head": head,
    }))
}

/// Whether every edge up to `e` is fixed: before the first choice it is the stem, after it the head.
fn is_stem(supernet: &Supernet, e: usize) -> bool {
    supernet.edges[..=e].iter().all(|edge| matches!(edge.selection, Selection::Fixed(_)))
}
