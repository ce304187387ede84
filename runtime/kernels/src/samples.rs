//! The gradient of a BatchNorm with constant statistics, sample by sample, in one sweep over memory.

use pulp::{Simd, WithSimd};

use super::instructions::instructions;
use super::lanes::Lanes;
use super::moments::{Normalise, fold_sums, masked};

/// Super-rows summed in float32 before they go into a float64 sum.
const BLOCK_ROWS: usize = 64;
/// Lanes swept at a time: the float32 sums of a strip stay in the innermost cache.
const STRIP: usize = 512;

/// Writes dx = scale * g of whole super-rows, and adds up g and g * (x - mean) for each lane.
struct SampleSums<'a, const RELU: bool> {
    x: &'a [f32],
    dy: &'a [f32],
    normalise: Normalise<'a>,
    dx: &'a mut [f32],
    /// First half: sums of g; second half: sums of g * (x - mean).
    out: &'a mut [f64],
}

impl<const RELU: bool> WithSimd for SampleSums<'_, RELU> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, normalise, dx, out } = self;
        let width = normalise.mean.len();
        let (totals, products) = out.split_at_mut(width);
        let (mut sum, mut product) = ([0.0f32; STRIP], [0.0f32; STRIP]);
        let block = BLOCK_ROWS * width;
        for first in (0..width).step_by(STRIP) {
            let strip = STRIP.min(width - first);
            let (sum, product) = (&mut sum[..strip], &mut product[..strip]);
            let coefficients =
                [normalise.mean, normalise.scale, normalise.beta].map(|c| S::as_simd_f32s(&c[first..][..strip]).0);
            for ((x, dy), dx) in x.chunks(block).zip(dy.chunks(block)).zip(dx.chunks_mut(block)) {
                sum.fill(0.0);
                product.fill(0.0);
                let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
                for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                    let [x, dy] = [x, dy].map(|row| S::as_simd_f32s(&row[first..][..strip]).0);
                    let dx = S::as_mut_simd_f32s(&mut dx[first..][..strip]).0;
                    let to = (S::as_mut_simd_f32s(sum).0, S::as_mut_simd_f32s(product).0);
                    add_row::<S, RELU>(simd, x, dy, coefficients, dx, to);
                }
                for (total, &s) in totals[first..].iter_mut().zip(sum.iter()) {
                    *total += f64::from(s);
                }
                for (total, &s) in products[first..].iter_mut().zip(product.iter()) {
                    *total += f64::from(s);
                }
            }
        }
    }
}

#[inline(always)]
fn add_row<S: Simd, const RELU: bool>(
    simd: S,
    x: &[S::f32s],
    dy: &[S::f32s],
    [mean, scale, beta]: [&[S::f32s]; 3],
    dx: &mut [S::f32s],
    (sums, products): (&mut [S::f32s], &mut [S::f32s]),
) {
    let n = sums.len();
    let (x, dy, dx, products) = (&x[..n], &dy[..n], &mut dx[..n], &mut products[..n]);
    let (mean, scale, beta) = (&mean[..n], &scale[..n], &beta[..n]);
    for v in 0..n {
        let d = simd.sub_f32s(x[v], mean[v]);
        let g = masked::<S, RELU>(simd, dy[v], d, scale[v], beta[v]);
        sums[v] = simd.add_f32s(sums[v], g);
        products[v] = simd.mul_add_e_f32s(g, d, products[v]);
        dx[v] = simd.mul_f32s(scale[v], g);
    }
}

/// Where the gradients of one sample go.
pub(super) struct SampleOut<'a> {
    /// `[H,W,C]`.
    pub(super) dx: &'a mut [f32],
    /// `[C]`.
    pub(super) dgamma: &'a mut [f32],
    /// `[C]`.
    pub(super) dbeta: &'a mut [f32],
}

/// Memory for the samples of one part.
pub(super) struct Scratch {
    sums: Vec<f64>,
    totals: Vec<f64>,
    tail: [Vec<f32>; 3],
}

impl Scratch {
    pub(super) fn new(lanes: Lanes, channels: usize) -> Self {
        let width = lanes.width();
        let tail = std::array::from_fn(|_| vec![0.0; width]);
        Self { sums: vec![0.0; 4 * width], totals: vec![0.0; 2 * channels], tail }
    }
}

/// The gradients of one sample, `x` and `dy` being `[H,W,C]`; `r` is 1 / sqrt(var + epsilon) of each channel. Pixels
/// that fill no super-row are swept as one padded with zeroes.
pub(super) fn sample_gradient(
    relu: bool,
    lanes: Lanes,
    (x, dy): (&[f32], &[f32]),
    normalise: Normalise<'_>,
    r: &[f64],
    scratch: &mut Scratch,
    out: &mut SampleOut<'_>,
) {
    let (whole, width) = (lanes.whole(x.len()), lanes.width());
    let ((x, x_tail), (dy, dy_tail)) = (x.split_at(whole), dy.split_at(whole));
    let (dx, dx_tail) = out.dx.split_at_mut(whole);
    let Scratch { sums, totals, tail: [padded_x, padded_dy, padded_dx] } = scratch;
    for (padded, tail) in [(&mut *padded_x, x_tail), (&mut *padded_dy, dy_tail)] {
        padded.fill(0.0);
        padded[..tail.len()].copy_from_slice(tail);
    }
    sums.fill(0.0);
    let (whole_sums, tail_sums) = sums.split_at_mut(2 * width);
    sweep(relu, (x, dy), normalise, dx, whole_sums);
    if !dx_tail.is_empty() {
        sweep(relu, (padded_x, padded_dy), normalise, padded_dx, tail_sums);
        dx_tail.copy_from_slice(&padded_dx[..dx_tail.len()]);
    }
    totals.fill(0.0);
    let (sum, product) = totals.split_at_mut(r.len());
    fold_sums(sums, width, sum, product);
    for ((dgamma, dbeta), ((&sum, &product), &r)) in
        out.dgamma.iter_mut().zip(out.dbeta.iter_mut()).zip(sum.iter().zip(product.iter()).zip(r))
    {
        *dgamma = (product * r) as f32;
        *dbeta = sum as f32;
    }
}

fn sweep(relu: bool, (x, dy): (&[f32], &[f32]), normalise: Normalise<'_>, dx: &mut [f32], out: &mut [f64]) {
    let arch = instructions();
    if relu {
        arch.dispatch(SampleSums::<true> { x, dy, normalise, dx, out });
    } else {
        arch.dispatch(SampleSums::<false> { x, dy, normalise, dx, out });
    }
}
