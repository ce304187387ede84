//! Channel shuffle (Zhang et al. 2018, arXiv 1707.01083, section 3.1). With `C` channels in `g` groups,
//!
//! `y[n, j g + i, h, w] = x[n, i C / g + j, h, w]`:
//!
//! a matrix of channel numbers, `g` rows of `C / g`, is transposed. Its gradient transposes back, which is the
//! shuffle of `C / g` groups.

use ndarray::{Array4, ArrayD};

use super::{
    super::op::{InputGradients, Op, Vjp},
    Dims, GraphError, image, shape,
};

pub(crate) fn dims(groups: u32, inputs: &[&Dims]) -> Option<Vec<Dims>> {
    let &[x] = inputs else { return None };
    let fits = groups > 0 && shape(x)?.channels.is_multiple_of(groups);
    fits.then(|| vec![x.clone()])
}

pub(crate) fn vjp(groups: u32, rule: &mut Vjp<'_>) -> Result<InputGradients, GraphError> {
    let Some(g) = rule.gradients[0] else { return Ok(vec![None]) };
    let Some(x) = shape(rule.graph.dims(rule.inputs[0])?) else { return Ok(vec![None]) };
    let back = Op::ChannelShuffle { groups: x.channels / groups.max(1) };
    Ok(vec![Some(rule.graph.apply(back, &[g])?)])
}

pub(crate) fn evaluate(groups: u32, inputs: &[&ArrayD<f64>]) -> Option<Vec<ArrayD<f64>>> {
    let x = image(inputs.first()?)?;
    let groups = groups as usize;
    let each = x.dim().1.checked_div(groups)?;
    let mut y = Array4::zeros(x.dim());
    for ((n, c, h, w), &value) in x.indexed_iter() {
        let (i, j) = (c / each, c % each);
        y[[n, j * groups + i, h, w]] = value;
    }
    Some(vec![y.into_dyn()])
}
