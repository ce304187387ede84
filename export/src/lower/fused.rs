//! The runtime's fused operators (domain `nasbn`), activations `[N, H, W, C]`.
//!
//! | operator | inputs | attributes | outputs |
//! | --- | --- | --- | --- |
//! | BatchNormTrain | x, gamma, beta, (residual) | epsilon, relu | y, mean, var |
//! | BatchNormTrainGrad | dy, x, gamma, beta, mean, var | epsilon, relu | dx, dgamma, dbeta |
//! | BatchNormApply | x, gamma, beta, mean, var, (residual) | epsilon, relu | y |
//! | BatchNormApplyGrad | dy, x, gamma, beta, mean, var | epsilon, relu | dx, dgamma `[N, C]`, dbeta `[N, C]` |
//! | SignAgreement | x, gamma, beta, mean, var | epsilon | `[N, N]` |
//! | DepthwiseConv | x, w `[k, k, C]` | kernel, stride, pad | y |
//! | DepthwiseConvGrad | dy, w `[k, k, C]` | kernel, stride, pad, height, width | dx |
//! | GlobalAvgPool | x | | `[N, C]` |
//! | GlobalAvgPoolGrad | dy `[N, C]` | height, width | dx |
//!
//! 1x1 convolutions are products of matrices, one for each of a few groups. Everything else is left to the portable nodes,
//! between two transpositions.

use std::collections::HashMap;

use crate::{
    ir::{Dims, Graph, GraphError, Node, Op, Rewriter, Value, Window},
    onnx::{Attr, FUSED_DOMAIN},
};

use super::{
    Layout::{Nchw, Nhwc},
    Lowerer, grouped, portable,
};

/// The same graph with ReLUs and residual sums taken into the BatchNorms that they follow, masks of
/// ReLUs into the gradients of the BatchNorms before them, and BatchNorms into the agreement of their signs.
///
/// # Errors
/// Never for a graph whose primitives were applied by [`Graph::apply`].
pub fn fuse(graph: &Graph) -> Result<Graph, GraphError> {
    let uses = graph.uses();
    let mut followers: HashMap<Value, usize> = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let once = |value: &&Value| uses.get(value) == Some(&1);
        followers.extend(node.inputs.iter().filter(once).map(|&value| (value, index)));
    }
    let rule = |rewriter: &mut Rewriter<'_>, value: Value| {
        let source = rewriter.source();
        let node = &source.nodes()[value.node];
        match &node.op {
            Op::BatchNormTrain { .. } => follow(rewriter, value.node, &followers, value),
            Op::Relu | Op::Add => {
                for &input in &node.inputs {
                    let from = &source.nodes()[input.node].op;
                    let normalised = matches!(from, Op::BatchNormTrain { .. } | Op::BatchNormApply { .. });
                    let alone = normalised && followers.get(&input) == Some(&value.node);
                    if alone && let Some(fused) = follow(rewriter, input.node, &followers, value)? {
                        return Ok(Some(fused));
                    }
                }
                Ok(None)
            }
            Op::SignAgreement => {
                let from = &source.nodes()[node.inputs[0].node];
                let normalised = from.op == Op::BatchNormApply { relu: false } && from.inputs.len() == 5;
                if !normalised {
                    return Ok(None);
                }
                let inputs = from.inputs.iter().map(|&v| rewriter.copy(v)).collect::<Result<Vec<_>, _>>()?;
                rewriter.apply(Op::SignAgreement, &inputs).map(Some)
            }
            Op::BatchNormTrainGrad { relu: false } | Op::BatchNormApplyGrad { relu: false } => masked(rewriter, value),
            _ => Ok(None),
        }
    };
    Rewriter::new(graph, &rule).finish()
}

/// Copies the BatchNorm `index` together with the ReLU or the sum that alone uses its output;
/// gives the copy of `wanted`, a value of either.
fn follow(
    rewriter: &mut Rewriter<'_>,
    index: usize,
    followers: &HashMap<Value, usize>,
    wanted: Value,
) -> Result<Option<Value>, GraphError> {
    let source = rewriter.source();
    let node = &source.nodes()[index];
    let y = Value { node: index, output: 0 };
    let Some(&follower) = followers.get(&y) else { return Ok(None) };
    let mut inputs = node.inputs.clone();
    let relu = match &source.nodes()[follower].op {
        Op::Relu => true,
        Op::Add => {
            let other = source.nodes()[follower].inputs.iter().find(|&&v| v != y);
            // A summand that is made later may need the BatchNorm itself.
            let Some(&other) = other.filter(|v| v.node < index) else { return Ok(None) };
            inputs.push(other);
            false
        }
        _ => return Ok(None),
    };
    let inputs = inputs.into_iter().map(|v| rewriter.copy(v)).collect::<Result<Vec<_>, _>>()?;
    let op = match node.op {
        Op::BatchNormTrain { .. } => Op::BatchNormTrain { relu },
        _ => Op::BatchNormApply { relu },
    };
    let fused = rewriter.apply(op, &inputs)?;
    rewriter.note(index, fused, node.outputs.len());
    rewriter.note(follower, fused, 1);
    Ok(Some(if wanted.node == follower { fused } else { fused.sibling(wanted.output) }))
}

/// The gradient of a BatchNorm whose g is masked by a ReLU of that very BatchNorm.
fn masked(rewriter: &mut Rewriter<'_>, value: Value) -> Result<Option<Value>, GraphError> {
    let source = rewriter.source();
    let node = &source.nodes()[value.node];
    let &[g, x, gamma, mean, var] = node.inputs.as_slice() else { return Ok(None) };
    let made_by = |value: Value| (&source.nodes()[value.node].op, source.nodes()[value.node].inputs.as_slice());
    let (Op::ReluGrad, &[g, relu]) = made_by(g) else { return Ok(None) };
    let (Op::Relu, &[normalised]) = made_by(relu) else { return Ok(None) };
    let (Op::BatchNormApply { relu: false }, &[of_x, of_gamma, beta, of_mean, of_var]) = made_by(normalised) else {
        return Ok(None);
    };
    if [of_x, of_gamma, of_mean, of_var] != [x, gamma, mean, var] {
        return Ok(None);
    }
    let inputs = [g, x, gamma, mean, var, beta].map(|v| rewriter.copy(v)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let op = match node.op {
        Op::BatchNormTrainGrad { .. } => Op::BatchNormTrainGrad { relu: true },
        _ => Op::BatchNormApplyGrad { relu: true },
    };
    let fused = rewriter.apply(op, &inputs)?;
    rewriter.note(value.node, fused, node.outputs.len());
    Ok(Some(fused.sibling(value.output)))
}

/// Adds the nodes of one primitive; `false` if the portable ones should do.
pub(crate) fn emit(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<bool, GraphError> {
    match node.op {
        Op::BatchNormTrain { relu }
        | Op::BatchNormTrainGrad { relu }
        | Op::BatchNormApply { relu }
        | Op::BatchNormApplyGrad { relu } => batch_norm(l, node, value, relu)?,
        Op::SignAgreement if node.inputs.len() == 5 => {
            let inputs = node.inputs.iter().map(|&v| l.read(v, Nhwc)).collect::<Result<Vec<_>, _>>()?;
            let output = l.define(value, Nhwc, "agreement");
            kernel(l, node.op.name(), &inputs, &[output], &[("epsilon", l.epsilon().into())]);
        }
        Op::Conv { window: window @ Window { kernel: 1, .. }, groups: 1 } => pointwise(l, node, value, window, 1)?,
        Op::Conv { window, groups } if is_depthwise(l, node, window, groups)? && node.inputs.len() == 2 => {
            depthwise(l, node, value, window, groups, None)?;
        }
        Op::ConvInputGrad { window: window @ Window { kernel: 1, .. }, groups: 1, height, width } => {
            pointwise_grad(l, node, value, window, 1, [height, width])?;
        }
        Op::ConvInputGrad { window, groups, height, width } if is_depthwise(l, node, window, groups)? => {
            depthwise(l, node, value, window, groups, Some([height, width]))?;
        }
        Op::Conv { window: window @ Window { kernel: 1, .. }, groups } if groups <= grouped::MOST_PRODUCTS => {
            pointwise(l, node, value, window, groups)?;
        }
        Op::ConvInputGrad { window: window @ Window { kernel: 1, .. }, groups, height, width }
            if groups <= grouped::MOST_PRODUCTS =>
        {
            pointwise_grad(l, node, value, window, groups, [height, width])?;
        }
        Op::ChannelShuffle { groups } => grouped::shuffle(l, node, value, groups, Nhwc)?,
        Op::Relu | Op::ReluGrad | Op::Sigmoid | Op::SigmoidGrad | Op::Add | Op::Mul | Op::SumPixels => {
            portable::simple(l, node, value, Nhwc)?;
        }
        Op::GlobalAvgPool | Op::GlobalAvgPoolGrad { .. } | Op::Flatten | Op::Unflatten => pool(l, node, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn batch_norm(l: &mut Lowerer<'_>, node: &Node, value: Value, relu: bool) -> Result<(), GraphError> {
    let mut inputs = node.inputs.iter().map(|&v| l.read(v, Nhwc)).collect::<Result<Vec<_>, _>>()?;
    if matches!(node.op, Op::BatchNormTrainGrad { .. } | Op::BatchNormApplyGrad { .. }) {
        // The kernel has beta in the fourth place; without a mask it is not looked at.
        let beta = if relu { inputs.pop() } else { None };
        let channels = l.shape(node.inputs[1])?.channels;
        let zeros = || vec![0.0; channels as usize];
        let beta = beta.unwrap_or_else(|| l.constant(&format!("zeros_{channels}"), &[i64::from(channels)], &zeros()));
        inputs.insert(3, beta);
    }
    let stems: &[&str] = match node.op {
        Op::BatchNormTrainGrad { .. } => &["dx", "dgamma", "dbeta"],
        Op::BatchNormApplyGrad { .. } => &["dx", "sample_dgamma", "sample_dbeta"],
        _ => &["normalised", "mean", "var"],
    };
    let outputs = stems.iter().take(node.outputs.len()).enumerate();
    let outputs: Vec<String> = outputs.map(|(i, stem)| l.define(value.sibling(i), Nhwc, stem)).collect();
    let attrs: [(&str, Attr); 2] = [("epsilon", l.epsilon().into()), ("relu", i64::from(relu).into())];
    kernel(l, node.op.name(), &inputs, &outputs, &attrs);
    Ok(())
}

fn kernel(l: &mut Lowerer<'_>, op_type: &str, inputs: &[String], outputs: &[String], attrs: &[(&str, Attr)]) {
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    l.builder.domain_node(FUSED_DOMAIN, op_type, &inputs, &outputs, attrs);
}

/// Largest filter side, and largest stride, of the operators `DepthwiseConv` and `DepthwiseConvGrad`: part of their
/// contract. Larger ones are left to the portable nodes.
pub const LARGEST_DEPTHWISE_KERNEL: u16 = 15;

fn is_depthwise(l: &Lowerer<'_>, node: &Node, window: Window, groups: u32) -> Result<bool, GraphError> {
    let fits = window.kernel.max(window.stride) <= u32::from(LARGEST_DEPTHWISE_KERNEL);
    Ok(fits && matches!(l.weight_dims(node.inputs[1])?, &[out, 1, ..] if out == groups))
}

/// A 1x1 convolution: the pixels, as rows of a matrix, times the transposed weight.
fn pointwise(l: &mut Lowerer<'_>, node: &Node, value: Value, window: Window, groups: u32) -> Result<(), GraphError> {
    let [inputs, outputs] = [l.shape(node.inputs[0])?.channels, l.shape(value)?.channels];
    let mut x = l.read(node.inputs[0], Nhwc)?;
    if window.stride > 1 {
        let (start, end) = (l.integers(&[0, 0]), l.integers(&[i64::from(i32::MAX), i64::from(i32::MAX)]));
        let stride = i64::from(window.stride);
        let (axes, steps) = (l.integers(&[1, 2]), l.integers(&[stride, stride]));
        x = l.node("Slice", &[&x, &start, &end, &axes, &steps], &[]);
    }
    let w = matrix(l, node.inputs[1])?;
    let w = l.once(format!("{w} transposed"), |l| l.node("Transpose", &[&w], &[("perm", [1, 0].into())]));
    let target = Some((value, Nhwc));
    match node.inputs.get(2) {
        None => {
            grouped::product(l, target, (&x, inputs), (&w, 1, outputs), groups);
        }
        Some(&bias) => {
            let product = grouped::product(l, None, (&x, inputs), (&w, 1, outputs), groups);
            let bias = l.read(bias, Nchw)?;
            l.node_to(target, "Add", &[&product, &bias], &[]);
        }
    }
    Ok(())
}

/// The weight of a 1x1 convolution as `[out, in]`.
fn matrix(l: &mut Lowerer<'_>, weight: Value) -> Result<String, GraphError> {
    let dims = l.weight_dims(weight)?.get(..2).unwrap_or_default();
    l.weight(weight, dims)
}

fn pointwise_grad(
    l: &mut Lowerer<'_>,
    node: &Node,
    value: Value,
    window: Window,
    groups: u32,
    extent: [u32; 2],
) -> Result<(), GraphError> {
    let g = l.read(node.inputs[0], Nhwc)?;
    let w = matrix(l, node.inputs[1])?;
    let small = l.shape(node.inputs[0])?;
    let is_last = window.stride == 1;
    let target = Some((value, Nhwc));
    let out = small.channels;
    let dx = grouped::product(l, target.filter(|_| is_last), (&g, out), (&w, 0, out), groups);
    if is_last {
        return Ok(());
    }
    let [height, width, channels] = [small.height, small.width, l.shape(value)?.channels].map(i64::from);
    let stride = i64::from(window.stride);
    // Zeros after every pixel of a row, and a row of zeros after every row.
    let apart = l.integers(&[0, height, 1, width, channels]);
    let apart = l.node("Reshape", &[&dx, &apart], &[]);
    let zeros = l.integers(&[0, 0, 0, 0, 0, 0, 0, stride - 1, 0, (stride - 1) * channels]);
    let padded = l.node("Pad", &[&apart, &zeros], &[]);
    let extent = extent.map(i64::from);
    let fits = extent == [height * stride, width * stride];
    let together = l.integers(&[0, height * stride, width * stride, channels]);
    let together = l.node_to(target.filter(|_| fits), "Reshape", &[&padded, &together], &[]);
    if !fits {
        let (start, end, axes) = (l.integers(&[0, 0]), l.integers(&extent), l.integers(&[1, 2]));
        l.node_to(target, "Slice", &[&together, &start, &end, &axes], &[]);
    }
    Ok(())
}

/// A depthwise convolution, or with `extent` (height and width of x) the gradient of one.
fn depthwise(
    l: &mut Lowerer<'_>,
    node: &Node,
    value: Value,
    window: Window,
    channels: u32,
    extent: Option<[u32; 2]>,
) -> Result<(), GraphError> {
    let first = l.read(node.inputs[0], Nhwc)?;
    let w = l.weight(node.inputs[1], &[channels, window.kernel, window.kernel])?;
    let w = l.once(format!("{w} channels last"), |l| l.node("Transpose", &[&w], &[("perm", [1, 2, 0].into())]));
    let [side, stride, pad] = [window.kernel, window.stride, window.pad()].map(i64::from);
    let mut attrs: Vec<(&str, Attr)> = vec![("kernel", side.into()), ("stride", stride.into()), ("pad", pad.into())];
    let op_type = if let Some([height, width]) = extent {
        attrs.extend([("height", i64::from(height).into()), ("width", i64::from(width).into())]);
        "DepthwiseConvGrad"
    } else {
        "DepthwiseConv"
    };
    let output = l.define(value, Nhwc, "depthwise");
    kernel(l, op_type, &[first, w], &[output], &attrs);
    Ok(())
}

/// Global pooling, whose kernels have no pixels on their small side, and the changes of rank around
/// it, which then cost nothing.
fn pool(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let input = node.inputs[0];
    match node.op {
        Op::GlobalAvgPool => {
            let x = l.read(input, Nhwc)?;
            let pooled = l.builder.fresh("pooled");
            kernel(l, "GlobalAvgPool", &[x], std::slice::from_ref(&pooled), &[]);
            if l.is_used_beside(value, |op| *op == Op::Flatten) {
                pixels(l, value, &pooled)?;
            }
            l.flat.insert(value, pooled);
        }
        Op::Unflatten => {
            let features = l.read(input, Nchw)?;
            if l.is_used_beside(value, |op| matches!(op, Op::GlobalAvgPoolGrad { .. })) {
                pixels(l, value, &features)?;
            }
            l.flat.insert(value, features);
        }
        Op::Flatten => match l.flat.get(&input).cloned() {
            Some(features) => l.is_called(value, features),
            None => {
                let x = l.read(input, Nhwc)?;
                l.node_to(Some((value, Nchw)), "Flatten", &[&x], &[("axis", 1.into())]);
            }
        },
        Op::GlobalAvgPoolGrad { height, width } => {
            let g = match l.flat.get(&input).cloned() {
                Some(features) => features,
                None => {
                    let g = l.read(input, Nhwc)?;
                    l.node("Flatten", &[&g], &[("axis", 1.into())])
                }
            };
            let dx = l.define(value, Nhwc, "unpooled");
            let attrs = [("height", i64::from(height).into()), ("width", i64::from(width).into())];
            kernel(l, "GlobalAvgPoolGrad", &[g], &[dx], &attrs);
        }
        _ => {}
    }
    Ok(())
}

/// `[N, C]` as an image of one pixel.
fn pixels(l: &mut Lowerer<'_>, value: Value, features: &str) -> Result<(), GraphError> {
    let channels = match l.dims(value)? {
        Dims::Image(shape) => shape.channels,
        other => return Err(GraphError::Shape { op: "Unflatten", problem: format!("{other:?} is no image") }),
    };
    let shape = l.integers(&[0, 1, 1, i64::from(channels)]);
    l.node_to(Some((value, Nhwc)), "Reshape", &[features, &shape], &[]);
    Ok(())
}
