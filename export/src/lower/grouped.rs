//! Convolutions in groups as products of matrices, and the shuffle between two of them.

use crate::ir::{GraphError, Node, Value};

use super::{
    Layout::{self, Nchw, Nhwc},
    Lowerer,
};

/// Most groups for which a product a group is better than the portable convolution between two transpositions.
pub(super) const MOST_PRODUCTS: u32 = 8;

/// Pixels as rows of a matrix, `x` (`[N, H, W, C]`), times the matrices of `groups` groups; gives the name of the
/// product. `w` has `extent` rows or columns along `axis`, those of each group together: with axis 1 it is
/// `[C / groups, extent]` and with axis 0 `[extent, C']`, and `C` are the channels of `x`.
pub(super) fn product(
    l: &mut Lowerer<'_>,
    target: Option<(Value, Layout)>,
    (x, channels): (&str, u32),
    (w, axis, extent): (&str, i64, u32),
    groups: u32,
) -> String {
    if groups <= 1 {
        return l.node_to(target, "MatMul", &[x, w], &[]);
    }
    let xs = split(l, x, 3, channels, groups);
    let ws = split(l, w, axis, extent, groups);
    let products: Vec<String> = xs.iter().zip(&ws).map(|(x, w)| l.node("MatMul", &[x, w], &[])).collect();
    let products: Vec<&str> = products.iter().map(String::as_str).collect();
    l.node_to(target, "Concat", &products, &[("axis", 3.into())])
}

/// Equal parts of a value along an axis of `extent`.
fn split(l: &mut Lowerer<'_>, x: &str, axis: i64, extent: u32, groups: u32) -> Vec<String> {
    let sizes = l.integers(&vec![i64::from(extent / groups); groups as usize]);
    let parts: Vec<String> = (0..groups).map(|_| l.builder.fresh("part")).collect();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    l.builder.node("Split", &[x, &sizes], &names, &[("axis", axis.into())]);
    parts
}

/// The weight of the transposed convolution of every group: `[out, in / groups, k, k]` becomes
/// `[in, out / groups, k, k]`.
pub(super) fn turned(l: &mut Lowerer<'_>, w: &str, dims: &[u32], groups: u32) -> Result<String, GraphError> {
    let &[out, per_group, height, width] = dims else {
        return Err(GraphError::NotLowered { op: "ConvInputGrad" });
    };
    Ok(l.once(format!("{w} transposed"), |l| {
        if groups == 1 {
            return l.node("Transpose", &[w], &[("perm", [1, 0, 2, 3].into())]);
        }
        let of_group = out / groups;
        let apart = l.integers(&[groups, of_group, per_group, height, width].map(i64::from));
        let apart = l.node("Reshape", &[w, &apart], &[]);
        let swapped = l.node("Transpose", &[&apart], &[("perm", [0, 2, 1, 3, 4].into())]);
        let together = l.integers(&[groups * per_group, of_group, height, width].map(i64::from));
        l.node("Reshape", &[&swapped, &together], &[])
    }))
}

/// A channel shuffle: the channels as a matrix of `groups` rows, transposed.
pub(super) fn shuffle(
    l: &mut Lowerer<'_>,
    node: &Node,
    value: Value,
    groups: u32,
    layout: Layout,
) -> Result<(), GraphError> {
    let shape = l.shape(value)?;
    let x = l.read(node.inputs[0], layout)?;
    let [c, h, w, g] = [shape.channels, shape.height, shape.width, groups.max(1)].map(i64::from);
    let (apart, perm, together) = match layout {
        Nchw => ([0, g, c / g, h, w], [0_i64, 2, 1, 3, 4], [0, c, h, w]),
        Nhwc => ([0, h, w, g, c / g], [0, 1, 2, 4, 3], [0, h, w, c]),
    };
    let (apart, together) = (l.integers(&apart), l.integers(&together));
    let apart = l.node("Reshape", &[&x, &apart], &[]);
    let shuffled = l.node("Transpose", &[&apart], &[("perm", perm.into())]);
    l.node_to(Some((value, layout)), "Reshape", &[&shuffled, &together], &[]);
    Ok(())
}
