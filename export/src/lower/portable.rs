//! Standard ONNX nodes (opset 17), activations `[N, C, H, W]`.
//!
//! Written for how ONNX Runtime's CPU provider and the GPU providers run them:
//! * no training-mode BatchNormalization; statistics by ReduceMean, the normalisation itself as
//!   BatchNormalization in its inference form on the computed statistics, and so is its gradient,
//!   which is affine in g and in x: one pass each instead of four elementwise ones;
//! * ReLU's mask is the sign of its output;
//! * the gradient of a convolution is a convolution wherever it can be: with the kernel flipped,
//!   after zeros are put between the pixels if it is strided. Weights are transposed and flipped
//!   inside the graph, where sessions fold it once, so that they are stored once.

use nasbn_models::Shape;

use crate::{
    ir::{GraphError, Node, Op, Value, Window, ops::pool::seen},
    onnx::Attr,
};

use super::{
    Layout::{self, Nchw},
    Lowerer, grouped,
};

/// Adds the nodes of one primitive.
pub(crate) fn emit(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    match &node.op {
        Op::Input(_) | Op::Weight(_) | Op::Constant(_) => Ok(()),
        Op::One => {
            let one = l.constant("one", &[], &[1.0]);
            l.is_called(value, one);
            Ok(())
        }
        Op::Conv { window, groups } => conv(l, node, value, *window, *groups),
        Op::ConvInputGrad { window, groups, height, width } => {
            conv_input_grad(l, node, value, *window, *groups, [*height, *width])
        }
        Op::BatchNormTrain { relu: false } if node.inputs.len() == 3 => batch_norm_train(l, node, value),
        Op::BatchNormTrainGrad { relu: false } => batch_norm_train_grad(l, node, value),
        Op::BatchNormApplyGrad { relu: false } => batch_norm_apply_grad(l, node, value),
        Op::BatchNormApply { relu: false } if node.inputs.len() == 5 => {
            let inputs = read_all(l, node)?;
            let y = l.define(value, Nchw, "normalised");
            normalise(l, &inputs.iter().map(String::as_str).collect::<Vec<_>>(), &y);
            Ok(())
        }
        Op::SignAgreement if node.inputs.len() == 1 => sign_agreement(l, node, value),
        Op::ChannelShuffle { groups } => grouped::shuffle(l, node, value, *groups, Nchw),
        Op::SoftmaxCrossEntropy => softmax_cross_entropy(l, node, value),
        Op::SoftmaxCrossEntropyGrad => softmax_cross_entropy_grad(l, node, value),
        Op::AvgPoolGrad { window, height, width } => avg_pool_grad(l, node, value, *window, [*height, *width]),
        _ => simple(l, node, value, Nchw),
    }
}

fn read_all(l: &mut Lowerer<'_>, node: &Node) -> Result<Vec<String>, GraphError> {
    node.inputs.iter().map(|&v| l.read(v, Nchw)).collect()
}

/// Primitives of one node, or of a few without alternatives. Elementwise ones and sums over pixels
/// work in either layout.
pub(super) fn simple(l: &mut Lowerer<'_>, node: &Node, value: Value, layout: Layout) -> Result<(), GraphError> {
    let inputs: Result<Vec<String>, GraphError> = node.inputs.iter().map(|&v| l.read(v, layout)).collect();
    let mut inputs = inputs?;
    let (op_type, attrs): (&str, Vec<(&str, Attr)>) = match &node.op {
        Op::Relu => ("Relu", vec![]),
        Op::Sigmoid => ("Sigmoid", vec![]),
        Op::Add => ("Add", vec![]),
        Op::Mul => ("Mul", vec![]),
        Op::ReluGrad => {
            inputs[1] = l.node("Sign", &[&inputs[1]], &[]);
            ("Mul", vec![])
        }
        Op::SigmoidGrad => {
            inputs[1] = sigmoid_slope(l, &inputs[1]);
            ("Mul", vec![])
        }
        Op::SumPixels => {
            inputs.push(l.integers(if layout == Nchw { &[2, 3] } else { &[1, 2] }));
            ("ReduceSum", vec![("keepdims", 1.into())])
        }
        Op::GlobalAvgPool => ("GlobalAveragePool", vec![]),
        Op::GlobalAvgPoolGrad { height, width } => {
            let pixels = (height * width) as usize;
            let dims = [1, 1, i64::from(*height), i64::from(*width)];
            inputs.push(l.constant(&format!("share_of_{height}x{width}"), &dims, &vec![1.0 / pixels as f32; pixels]));
            ("Mul", vec![])
        }
        Op::AvgPool(window) => {
            let mut attrs = window_attrs(*window, window.stride);
            attrs.push(("count_include_pad", 0.into()));
            ("AveragePool", attrs)
        }
        Op::Flatten => ("Flatten", vec![("axis", 1.into())]),
        Op::Unflatten => {
            let channels = l.shape(value)?.channels;
            inputs.push(l.integers(&[0, i64::from(channels), 1, 1]));
            ("Reshape", vec![])
        }
        Op::Linear => ("Gemm", vec![("transB", 1.into())]),
        Op::LinearInputGrad => ("MatMul", vec![]),
        other => return Err(GraphError::NotLowered { op: other.name() }),
    };
    let y = l.define(value, layout, &node.op.name().to_lowercase());
    l.builder.node(op_type, &inputs.iter().map(String::as_str).collect::<Vec<_>>(), &[&y], &attrs);
    Ok(())
}

/// `y (1 - y)`.
pub(super) fn sigmoid_slope(l: &mut Lowerer<'_>, y: &str) -> String {
    let one = l.constant("one", &[], &[1.0]);
    let rest = l.node("Sub", &[&one, y], &[]);
    l.node("Mul", &[y, &rest], &[])
}

fn window_attrs(window: Window, stride: u32) -> Vec<(&'static str, Attr)> {
    let (kernel, stride, pad) = (i64::from(window.kernel), i64::from(stride), i64::from(window.pad()));
    vec![
        ("kernel_shape", [kernel, kernel].into()),
        ("strides", [stride, stride].into()),
        ("pads", [pad, pad, pad, pad].into()),
    ]
}

fn conv_attrs(window: Window, stride: u32, groups: u32) -> Vec<(&'static str, Attr)> {
    let mut attrs = window_attrs(window, stride);
    attrs.push(("group", i64::from(groups).into()));
    attrs
}

fn conv(l: &mut Lowerer<'_>, node: &Node, value: Value, window: Window, groups: u32) -> Result<(), GraphError> {
    let inputs = read_all(l, node)?;
    let y = l.define(value, Nchw, "conv");
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    l.builder.node("Conv", &inputs, &[&y], &conv_attrs(window, window.stride, groups));
    Ok(())
}

/// The kernel turned by half a turn.
fn flipped(l: &mut Lowerer<'_>, weight: &str, window: Window) -> String {
    if window.kernel == 1 {
        return weight.to_owned();
    }
    l.once(format!("{weight} flipped"), |l| {
        let (last, end) = (l.integers(&[-1, -1]), l.integers(&[i64::from(i32::MIN), i64::from(i32::MIN)]));
        let axes = l.integers(&[2, 3]);
        l.node("Slice", &[weight, &last, &end, &axes, &last], &[])
    })
}

fn conv_input_grad(
    l: &mut Lowerer<'_>,
    node: &Node,
    value: Value,
    window: Window,
    groups: u32,
    extent: [u32; 2],
) -> Result<(), GraphError> {
    let small = l.shape(node.inputs[0])?;
    let g = l.read(node.inputs[0], Nchw)?;
    let dims = l.weight_dims(node.inputs[1])?;
    let w = l.weight(node.inputs[1], dims)?;
    let [out, per_group, ..] = *dims else { return Err(GraphError::NotLowered { op: "ConvInputGrad" }) };
    let target = Some((value, Nchw));
    if groups == out && per_group == 1 {
        let w = flipped(l, &w, window);
        let g = if window.stride == 1 { g } else { spread(l, &g, small, window.stride, extent, None) };
        l.node_to(target, "Conv", &[&g, &w], &conv_attrs(window, 1, groups));
        return Ok(());
    }
    if window.stride == 1 || window.kernel == 1 {
        let turned = grouped::turned(l, &w, dims, groups)?;
        let w = flipped(l, &turned, window);
        let is_last = window.stride == 1;
        let dx = l.node_to(target.filter(|_| is_last), "Conv", &[&g, &w], &conv_attrs(window, 1, groups));
        if !is_last {
            let small = Shape { channels: per_group * groups, ..small };
            spread(l, &dx, small, window.stride, extent, target);
        }
        return Ok(());
    }
    // What the forward window leaves over at the end of rows and columns.
    let rest = |extent: u32, small: u32| i64::from(extent) - 1 - i64::from(window.stride) * (i64::from(small) - 1);
    let mut attrs = conv_attrs(window, window.stride, groups);
    attrs.push(("output_padding", [rest(extent[0], small.height), rest(extent[1], small.width)].into()));
    l.node_to(target, "ConvTranspose", &[&g, &w], &attrs);
    Ok(())
}

/// Puts `stride - 1` zeros after every pixel of `x` (of shape `small`), then cuts to `extent`.
fn spread(
    l: &mut Lowerer<'_>,
    x: &str,
    small: Shape,
    stride: u32,
    extent: [u32; 2],
    target: Option<(Value, Layout)>,
) -> String {
    let [channels, height, width] = [small.channels, small.height, small.width].map(i64::from);
    let stride = i64::from(stride);
    let apart = l.integers(&[0, channels, height, 1, width, 1]);
    let apart = l.node("Reshape", &[x, &apart], &[]);
    let zeros = l.integers(&[0, 0, 0, 0, 0, 0, 0, 0, 0, stride - 1, 0, stride - 1]);
    let padded = l.node("Pad", &[&apart, &zeros], &[]);
    let extent = extent.map(i64::from);
    let fits = extent == [height * stride, width * stride];
    let together = l.integers(&[0, channels, height * stride, width * stride]);
    let together = l.node_to(target.filter(|_| fits), "Reshape", &[&padded, &together], &[]);
    if fits {
        return together;
    }
    let (start, end, axes) = (l.integers(&[0, 0]), l.integers(&extent), l.integers(&[2, 3]));
    l.node_to(target, "Slice", &[&together, &start, &end, &axes], &[])
}

fn avg_pool_grad(
    l: &mut Lowerer<'_>,
    node: &Node,
    value: Value,
    window: Window,
    extent: [u32; 2],
) -> Result<(), GraphError> {
    let small = l.shape(node.inputs[0])?;
    let g = l.read(node.inputs[0], Nchw)?;
    // A pool that counts its padding divides by the whole window; what the forward pass divided by is less at the rim.
    let whole = (window.kernel * window.kernel) as f32;
    let mut weights = Vec::new();
    for i in 0..small.height as usize {
        for j in 0..small.width as usize {
            let inside = seen(window, i, extent[0] as usize).len() * seen(window, j, extent[1] as usize).len();
            weights.push(whole / inside as f32);
        }
    }
    let dims = [1, 1, i64::from(small.height), i64::from(small.width)];
    let name = format!("window_over_inside_{}x{}_k{}s{}", extent[0], extent[1], window.kernel, window.stride);
    let weights = l.constant(&name, &dims, &weights);
    let mut g = l.node("Mul", &[&g, &weights], &[]);
    if window.stride > 1 {
        g = spread(l, &g, small, window.stride, extent, None);
    }
    let mut attrs = window_attrs(window, 1);
    attrs.push(("count_include_pad", 1.into()));
    l.node_to(Some((value, Nchw)), "AveragePool", &[&g], &attrs);
    Ok(())
}

/// `inputs` are x, scale, shift, mean, variance.
fn normalise(l: &mut Lowerer<'_>, inputs: &[&str], y: &str) {
    l.builder.node("BatchNormalization", inputs, &[y], &[("epsilon", l.epsilon().into())]);
}

fn batch_norm_train(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let inputs = read_all(l, node)?;
    let (x, gamma, beta) = (inputs[0].as_str(), &inputs[1], &inputs[2]);
    let axes: Attr = [0, 2, 3].into();
    let mean4 = l.node("ReduceMean", &[x], &[("axes", axes.clone()), ("keepdims", 1.into())]);
    let centred = l.node("Sub", &[x, &mean4], &[]);
    let squared = l.node("Mul", &[&centred, &centred], &[]);
    let var = l.define(value.sibling(2), Nchw, "var");
    l.builder.node("ReduceMean", &[&squared], &[&var], &[("axes", axes), ("keepdims", 0.into())]);
    let flat = l.integers(&[-1]);
    let mean = l.define(value.sibling(1), Nchw, "mean");
    l.builder.node("Reshape", &[&mean4, &flat], &[&mean], &[]);
    let y = l.define(value, Nchw, "normalised");
    normalise(l, &[x, gamma, beta, &mean, &var], &y);
    Ok(())
}

/// `dx = gamma r g - gamma r mean(g) - gamma r mean(g hhat) hhat`: the first term is an affine map
/// of g, the other two are one of x.
fn batch_norm_train_grad(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let shape = l.shape(node.inputs[1])?;
    let inputs = read_all(l, node)?;
    let [g, x, gamma, mean, var] = inputs.as_slice() else {
        return Err(GraphError::NotLowered { op: node.op.name() });
    };
    let [ones, zeros] = ones_and_zeros(l, shape.channels);
    let hhat = l.builder.fresh("hhat");
    normalise(l, &[x, &ones, &zeros, mean, var], &hhat);
    let product = l.node("Mul", &[g, &hhat], &[]);
    let axes = l.integers(&[0, 2, 3]);
    let keep: &[(&str, Attr)] = &[("keepdims", 0.into())];
    let dgamma = l.define(value.sibling(1), Nchw, "dgamma");
    l.builder.node("ReduceSum", &[&product, &axes], &[&dgamma], keep);
    let dbeta = l.define(value.sibling(2), Nchw, "dbeta");
    l.builder.node("ReduceSum", &[g, &axes], &[&dbeta], keep);
    if !l.is_used(value) {
        return Ok(());
    }
    let batch = l.node("Shape", &[x], &[("start", 0.into()), ("end", 1.into())]);
    let batch = l.node("Cast", &[&batch], &[("to", 1.into())]);
    let pixels = l.constant(&format!("pixels_{}", shape.pixels()), &[], &[shape.pixels() as f32]);
    let count = l.node("Mul", &[&batch, &pixels], &[]);
    let epsilon = l.constant("epsilon", &[], &[l.epsilon()]);
    let sum = l.node("Add", &[var, &epsilon], &[]);
    let root = l.node("Sqrt", &[&sum], &[]);
    let scale = l.node("Div", &[gamma, &root], &[]);
    let scale = l.node("Neg", &[&scale], &[]);
    let share = l.node("Div", &[&scale, &count], &[]);
    let of_x = l.node("Mul", &[&share, &dgamma], &[]);
    let offset = l.node("Mul", &[&share, &dbeta], &[]);
    let through_x = l.builder.fresh("through_x");
    normalise(l, &[x, &of_x, &offset, mean, var], &through_x);
    let through_g = l.builder.fresh("through_g");
    normalise(l, &[g, gamma, &zeros, &zeros, var], &through_g);
    let dx = l.define(value, Nchw, "dx");
    l.builder.node("Add", &[&through_g, &through_x], &[&dx], &[]);
    Ok(())
}

/// Two vectors of constants, `[channels]` each.
fn ones_and_zeros(l: &mut Lowerer<'_>, channels: u32) -> [String; 2] {
    let mut vector = |stem, value| {
        l.constant(&format!("{stem}_{channels}"), &[i64::from(channels)], &vec![value; channels as usize])
    };
    [vector("ones", 1.0), vector("zeros", 0.0)]
}

/// Sums over pixels alone, and `dx = gamma r g`, an affine map of g.
fn batch_norm_apply_grad(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let channels = l.shape(node.inputs[1])?.channels;
    let inputs = read_all(l, node)?;
    let [g, x, gamma, mean, var] = inputs.as_slice() else {
        return Err(GraphError::NotLowered { op: node.op.name() });
    };
    let [ones, zeros] = ones_and_zeros(l, channels);
    let hhat = l.builder.fresh("hhat");
    normalise(l, &[x, &ones, &zeros, mean, var], &hhat);
    let product = l.node("Mul", &[g, &hhat], &[]);
    let axes = l.integers(&[2, 3]);
    let keep: &[(&str, Attr)] = &[("keepdims", 0.into())];
    let dgamma = l.define(value.sibling(1), Nchw, "sample_dgamma");
    l.builder.node("ReduceSum", &[&product, &axes], &[&dgamma], keep);
    let dbeta = l.define(value.sibling(2), Nchw, "sample_dbeta");
    l.builder.node("ReduceSum", &[g, &axes], &[&dbeta], keep);
    if l.is_used(value) {
        let dx = l.define(value, Nchw, "dx");
        normalise(l, &[g, gamma, &zeros, &zeros, var], &dx);
    }
    Ok(())
}

/// With S the signs as 1 and -1 and E their number, `(S S^T + E) / 2`. Whole numbers, and exact in float32 up to
/// E = 2^23.
fn sign_agreement(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let shape = l.shape(node.inputs[0])?;
    let x = l.read(node.inputs[0], Nchw)?;
    let [zero, one, minus_one] =
        [("zero", 0.0), ("one", 1.0), ("minus_one", -1.0)].map(|(name, value)| l.constant(name, &[], &[value]));
    let positive = l.node("Greater", &[&x, &zero], &[]);
    let signs = l.node("Where", &[&positive, &one, &minus_one], &[]);
    let signs = l.node("Flatten", &[&signs], &[("axis", 1.into())]);
    let activations = u64::from(shape.channels) * shape.pixels();
    let half = l.constant(&format!("half_of_{activations}"), &[1], &[activations as f32 / 2.0]);
    let attrs: &[(&str, Attr)] = &[("transB", 1.into()), ("alpha", 0.5_f32.into())];
    l.node_to(Some((value, Nchw)), "Gemm", &[&signs, &signs, &half], attrs);
    Ok(())
}

/// `[k = label_n]` as floats, for logits of `classes` classes.
fn one_hot(l: &mut Lowerer<'_>, labels: &str, classes: u32) -> String {
    l.once(format!("{labels} one-hot"), |l| {
        l.builder.initializer_i64("classes", &[], &[i64::from(classes)]);
        let off_on = l.constant("off_on", &[2], &[0.0, 1.0]);
        l.node("OneHot", &[labels, "classes", &off_on], &[("axis", (-1).into())])
    })
}

fn classes(l: &Lowerer<'_>, logits: Value) -> Result<u32, GraphError> {
    match l.dims(logits)? {
        crate::ir::Dims::Features(classes) => Ok(*classes),
        other => Err(GraphError::Shape { op: "SoftmaxCrossEntropy", problem: format!("{other:?} are no logits") }),
    }
}

fn softmax_cross_entropy(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let classes = classes(l, node.inputs[0])?;
    let inputs = read_all(l, node)?;
    let log = l.node("LogSoftmax", &[&inputs[0]], &[("axis", 1.into())]);
    let hot = one_hot(l, &inputs[1], classes);
    let picked = l.node("Mul", &[&log, &hot], &[]);
    let axis = l.integers(&[1]);
    let sum = l.node("ReduceSum", &[&picked, &axis], &[("keepdims", 0.into())]);
    let losses = l.define(value.sibling(1), Nchw, "losses");
    l.builder.node("Neg", &[&sum], &[&losses], &[]);
    let loss = l.define(value, Nchw, "mean_loss");
    l.builder.node("ReduceMean", &[&losses], &[&loss], &[("axes", [0].into()), ("keepdims", 0.into())]);
    Ok(())
}

fn softmax_cross_entropy_grad(l: &mut Lowerer<'_>, node: &Node, value: Value) -> Result<(), GraphError> {
    let classes = classes(l, node.inputs[1])?;
    let inputs = read_all(l, node)?;
    let softmax = l.node("Softmax", &[&inputs[1]], &[("axis", 1.into())]);
    let hot = one_hot(l, &inputs[2], classes);
    let difference = l.node("Sub", &[&softmax, &hot], &[]);
    let batch = l.node("Shape", &[&inputs[1]], &[("start", 0.into()), ("end", 1.into())]);
    let batch = l.node("Cast", &[&batch], &[("to", 1.into())]);
    let share = l.node("Div", &[&inputs[0], &batch], &[]);
    let dlogits = l.define(value, Nchw, "dlogits");
    l.builder.node("Mul", &[&difference, &share], &[&dlogits], &[]);
    Ok(())
}
