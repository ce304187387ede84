//! Agreement of activation signs, the kernel of NASWOT (Mellor et al. 2021, arXiv 2006.04647, equation 2):
//! `K[n,m]` = activations less the Hamming distance of the codes of samples n and m, a code being `x > 0`.

use ndarray::{Array2, ArrayD};

use super::{super::op::Op, Dims, batch_norm, image, shape};

/// What the fused form takes in.
const NORMALISED: Op = Op::BatchNormApply { relu: false };

pub(crate) fn dims(inputs: &[&Dims]) -> Option<Vec<Dims>> {
    match inputs {
        [x] => shape(x).map(|_| vec![Dims::Pairs]),
        _ => batch_norm::dims(&NORMALISED, inputs).filter(|_| inputs.len() == 5).map(|_| vec![Dims::Pairs]),
    }
}

pub(crate) fn evaluate(inputs: &[&ArrayD<f64>], epsilon: f64) -> Option<Vec<ArrayD<f64>>> {
    let x = match inputs {
        [x] => (*x).clone(),
        _ => batch_norm::evaluate(&NORMALISED, inputs, epsilon)?.pop()?,
    };
    let x = image(&x)?;
    let batch = x.dim().0;
    let equal = |n: usize, m: usize| {
        let pairs = x.index_axis(ndarray::Axis(0), n);
        let pairs = pairs.iter().zip(x.index_axis(ndarray::Axis(0), m));
        pairs.filter(|&(&a, &b)| (a > 0.0) == (b > 0.0)).count() as f64
    };
    Some(vec![Array2::from_shape_fn([batch, batch], |(n, m)| equal(n, m)).into_dyn()])
}
