//! The sweeps that write a tensor: normalisation forward, and its gradient.

use pulp::{Simd, WithSimd};

use super::instructions::instructions;
use super::moments::{Normalise, affine, masked};

/// Super-rows swept side by side, so that a coefficient is loaded once for all of them.
const GROUP: usize = 4;

/// y = relu(scale * (x - mean) + beta) + residual over one part; all slices hold whole super-rows.
struct Forward<'a, const RELU: bool, const RESIDUAL: bool> {
    x: &'a [f32],
    residual: &'a [f32],
    normalise: Normalise<'a>,
    y: &'a mut [f32],
}

impl<const RELU: bool, const RESIDUAL: bool> WithSimd for Forward<'_, RELU, RESIDUAL> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, residual, normalise, y } = self;
        let width = normalise.mean.len();
        let coefficients = [normalise.mean, normalise.scale, normalise.beta].map(|c| S::as_simd_f32s(c).0);
        // Without a residual its place is taken by x, which is there anyway.
        let residual = if RESIDUAL { residual } else { x };
        let block = GROUP * width;
        for ((x, residual), y) in x.chunks(block).zip(residual.chunks(block)).zip(y.chunks_mut(block)) {
            if y.len() == block {
                forward_rows::<S, RELU, RESIDUAL, GROUP>(simd, x, residual, coefficients, y);
            } else {
                let rows = x.chunks_exact(width).zip(residual.chunks_exact(width));
                for ((x, residual), y) in rows.zip(y.chunks_exact_mut(width)) {
                    forward_rows::<S, RELU, RESIDUAL, 1>(simd, x, residual, coefficients, y);
                }
            }
        }
    }
}

#[inline(always)]
fn split_rows<T, const R: usize>(values: &[T], n: usize) -> [&[T]; R] {
    std::array::from_fn(|r| &values[r * n..][..n])
}

#[inline(always)]
fn forward_rows<S: Simd, const RELU: bool, const RESIDUAL: bool, const R: usize>(
    simd: S,
    x: &[f32],
    residual: &[f32],
    [mean, scale, beta]: [&[S::f32s]; 3],
    y: &mut [f32],
) {
    let n = mean.len();
    let (scale, beta) = (&scale[..n], &beta[..n]);
    let x = split_rows::<_, R>(S::as_simd_f32s(x).0, n);
    let residual = split_rows::<_, R>(S::as_simd_f32s(residual).0, n);
    let y = &mut S::as_mut_simd_f32s(y).0[..R * n];
    let zero = simd.splat_f32s(0.0);
    for v in 0..n {
        for r in 0..R {
            let mut value = affine(simd, simd.sub_f32s(x[r][v], mean[v]), scale[v], beta[v]);
            if RELU {
                // Not `max`: NaN must reach the loss.
                value = simd.select_f32s(simd.less_than_f32s(value, zero), zero, value);
            }
            if RESIDUAL {
                value = simd.add_f32s(value, residual[r][v]);
            }
            y[r * n + v] = value;
        }
    }
}

/// Normalises one part.
pub(super) fn forward(relu: bool, x: &[f32], residual: Option<&[f32]>, normalise: Normalise<'_>, y: &mut [f32]) {
    let arch = instructions();
    match (relu, residual) {
        (true, _) => arch.dispatch(Forward::<true, false> { x, residual: &[], normalise, y }),
        (false, None) => arch.dispatch(Forward::<false, false> { x, residual: &[], normalise, y }),
        (false, Some(residual)) => arch.dispatch(Forward::<false, true> { x, residual, normalise, y }),
    }
}

/// The coefficients of the gradient, a value a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradient<'a> {
    pub(super) normalise: Normalise<'a>,
    /// mean(g).
    pub(super) mean_g: &'a [f32],
    /// mean(g * hhat) / sqrt(var + epsilon).
    pub(super) slope: &'a [f32],
}

/// dx = scale * (g - mean_g - slope * (x - mean)) over one part.
struct Backward<'a, const RELU: bool> {
    x: &'a [f32],
    dy: &'a [f32],
    gradient: Gradient<'a>,
    dx: &'a mut [f32],
}

impl<const RELU: bool> WithSimd for Backward<'_, RELU> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, gradient, dx } = self;
        let Normalise { mean, scale, beta } = gradient.normalise;
        let width = mean.len();
        let coefficients = [mean, scale, beta, gradient.mean_g, gradient.slope].map(|c| S::as_simd_f32s(c).0);
        let block = GROUP * width;
        for ((x, dy), dx) in x.chunks(block).zip(dy.chunks(block)).zip(dx.chunks_mut(block)) {
            if dx.len() == block {
                backward_rows::<S, RELU, GROUP>(simd, x, dy, coefficients, dx);
            } else {
                for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
                    backward_rows::<S, RELU, 1>(simd, x, dy, coefficients, dx);
                }
            }
        }
    }
}

#[inline(always)]
fn backward_rows<S: Simd, const RELU: bool, const R: usize>(
    simd: S,
    x: &[f32],
    dy: &[f32],
    coefficients: [&[S::f32s]; 5],
    dx: &mut [f32],
) {
    let n = coefficients[0].len();
    let [mean, scale, beta, mean_g, slope] = coefficients.map(|c| &c[..n]);
    let x = split_rows::<_, R>(S::as_simd_f32s(x).0, n);
    let dy = split_rows::<_, R>(S::as_simd_f32s(dy).0, n);
    let dx = &mut S::as_mut_simd_f32s(dx).0[..R * n];
    for v in 0..n {
        let negative_slope = simd.neg_f32s(slope[v]);
        for r in 0..R {
            let d = simd.sub_f32s(x[r][v], mean[v]);
            let g = masked::<S, RELU>(simd, dy[r][v], d, scale[v], beta[v]);
            let centred = simd.sub_f32s(g, mean_g[v]);
            dx[r * n + v] = simd.mul_f32s(scale[v], simd.mul_add_e_f32s(negative_slope, d, centred));
        }
    }
}

/// Writes the gradient of one part's inputs.
pub(super) fn backward(relu: bool, x: &[f32], dy: &[f32], gradient: Gradient<'_>, dx: &mut [f32]) {
    let arch = instructions();
    if relu {
        arch.dispatch(Backward::<true> { x, dy, gradient, dx });
    } else {
        arch.dispatch(Backward::<false> { x, dy, gradient, dx });
    }
}
