//! Means, variances and the backward pass's sums of each channel, in one read of memory.
//!
//! Accuracy: values are summed in float32 over blocks of 64 super-rows only; blocks are joined in float64. The
//! variance is that of each lane's differences from its mean so far, so that neither a mean far from zero nor an
//! outlier costs digits, and blocks are joined by the formula of Chan, Golub and LeVeque (1979).

use pulp::{Simd, WithSimd};

use super::instructions::instructions;
use super::lanes::Lanes;

/// Super-rows summed in float32 before they go into a float64 sum.
const BLOCK_ROWS: usize = 64;
/// Lanes swept at a time: the float32 sums of a strip stay in the innermost cache.
const STRIP: usize = 512;
/// Super-rows read side by side, so that sums and coefficients are loaded once for all of them.
const GROUP: usize = 4;

/// Adds two groups of values, given as count, mean and sum of squared deviations; `into` becomes the joint group.
#[inline(always)]
fn join(into: (&mut [f64], &mut [f64]), into_count: f64, mean: &[f64], deviations: &[f64], count: f64) {
    let total = into_count + count;
    let share = count / total;
    let cross = into_count * share;
    for (((m, d), &mean), &deviation) in into.0.iter_mut().zip(into.1).zip(mean).zip(deviations) {
        let delta = mean - *m;
        *m += delta * share;
        *d += deviation + delta * delta * cross;
    }
}

/// `row` reinterpreted as vector registers; its length is a multiple of every register's.
#[inline(always)]
fn vectors<S: Simd>(row: &[f32]) -> &[S::f32s] {
    S::as_simd_f32s(row).0
}

/// Splits a group of super-rows into its rows, each cut to the lanes `first..first + strip`.
#[inline(always)]
fn strips<S: Simd, const R: usize>(rows: &[f32], width: usize, first: usize, strip: usize) -> [&[S::f32s]; R] {
    std::array::from_fn(|r| vectors::<S>(&rows[r * width + first..][..strip]))
}

/// Mean and sum of squared deviations of each lane over one part.
struct PartMoments<'a> {
    /// Whole super-rows.
    x: &'a [f32],
    width: usize,
    /// First half: means; second half: sums of squared deviations.
    out: &'a mut [f64],
}

impl WithSimd for PartMoments<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, width, out } = self;
        let (means, deviations) = out.split_at_mut(width);
        let (mut shift, mut sums, mut squares) = ([0.0f32; STRIP], [0.0f32; STRIP], [0.0f32; STRIP]);
        for first in (0..width).step_by(STRIP) {
            let strip = STRIP.min(width - first);
            let shift = &mut shift[..strip];
            let (sums, squares) = (&mut sums[..strip], &mut squares[..strip]);
            let (means, deviations) = (&mut means[first..][..strip], &mut deviations[first..][..strip]);
            let mut count = 0.0;
            for block in x.chunks(BLOCK_ROWS * width) {
                if count == 0.0 {
                    mean_of_rows(block.chunks_exact(width).take(GROUP).map(|row| &row[first..][..strip]), shift);
                } else {
                    for (shift, &mean) in shift.iter_mut().zip(means.iter()) {
                        *shift = mean as f32;
                    }
                }
                let shift = &*shift;
                sums.fill(0.0);
                squares.fill(0.0);
                let (sum, square) = (S::as_mut_simd_f32s(sums).0, S::as_mut_simd_f32s(squares).0);
                let mut groups = block.chunks_exact(GROUP * width);
                for group in &mut groups {
                    add_moments::<S, GROUP>(simd, strips::<S, GROUP>(group, width, first, strip), shift, sum, square);
                }
                for row in groups.remainder().chunks_exact(width) {
                    add_moments::<S, 1>(simd, strips::<S, 1>(row, width, first, strip), shift, sum, square);
                }
                let rows = (block.len() / width) as f64;
                let (per_row, total) = (1.0 / rows, count + rows);
                let (share, cross) = (rows / total, count * rows / total);
                let lanes = means.iter_mut().zip(deviations.iter_mut()).zip(shift).zip(sums.iter().zip(squares.iter()));
                for (((mean, deviation), &shift), (&sum, &square)) in lanes {
                    let (sum, square) = (f64::from(sum), f64::from(square));
                    let offset = sum * per_row;
                    // The first block meets zeroes, with share = 1 and cross = 0.
                    let delta = f64::from(shift) + offset - *mean;
                    *mean += delta * share;
                    *deviation += (square - sum * offset) + delta * delta * cross;
                }
                count = total;
            }
        }
    }
}

/// A mean of a few rows, good enough to take differences from.
#[inline(always)]
fn mean_of_rows<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, mean: &mut [f32]) {
    let share = 1.0 / rows.len() as f32;
    mean.fill(0.0);
    for row in rows {
        for (mean, &value) in mean.iter_mut().zip(row) {
            *mean += value * share;
        }
    }
}

#[inline(always)]
fn add_moments<S: Simd, const R: usize>(
    simd: S,
    rows: [&[S::f32s]; R],
    shift: &[f32],
    sums: &mut [S::f32s],
    squares: &mut [S::f32s],
) {
    let n = sums.len();
    let (shift, squares) = (&vectors::<S>(shift)[..n], &mut squares[..n]);
    let rows = rows.map(|row| &row[..n]);
    for v in 0..n {
        let (mut sum, mut square) = (sums[v], squares[v]);
        for row in rows {
            let d = simd.sub_f32s(row[v], shift[v]);
            sum = simd.add_f32s(sum, d);
            square = simd.mul_add_e_f32s(d, d, square);
        }
        (sums[v], squares[v]) = (sum, square);
    }
}

/// Fills `out` (twice the width) with a part's lane means and sums of squared deviations.
pub(super) fn part_moments(x: &[f32], lanes: Lanes, out: &mut [f64]) {
    out.fill(0.0);
    instructions().dispatch(PartMoments { x, width: lanes.width(), out });
}

/// Joins the parts' lane moments and the pixels that fill no super-row into mean and biased variance of each channel.
/// `joined` is zeroes, two a channel.
pub(super) fn join_moments(
    x: &[f32],
    lanes: Lanes,
    parts: &[f64],
    joined: &mut [f64],
    (mean, var): (&mut [f32], &mut [f32]),
) {
    struct Join<'a>(&'a [f32], Lanes, &'a [f64], &'a mut [f64], &'a mut [f64]);
    impl WithSimd for Join<'_> {
        type Output = f64;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> f64 {
            let Self(x, lanes, parts, mean, deviations) = self;
            let (width, channels) = (lanes.width(), mean.len());
            let whole = lanes.whole(x.len());
            let mut count = 0.0;
            for (index, part) in parts.chunks_exact(2 * width).enumerate() {
                let rows = (lanes.part(&x[..whole], index).len() / width) as f64;
                let (m, d) = part.split_at(width);
                for (m, d) in m.chunks_exact(channels).zip(d.chunks_exact(channels)) {
                    join((&mut *mean, &mut *deviations), count, m, d, rows);
                    count += rows;
                }
            }
            for pixel in x[whole..].chunks_exact(channels) {
                let share = 1.0 / (count + 1.0);
                for ((m, d), &value) in mean.iter_mut().zip(deviations.iter_mut()).zip(pixel) {
                    let delta = f64::from(value) - *m;
                    *m += delta * share;
                    *d += delta * delta * (count * share);
                }
                count += 1.0;
            }
            count
        }
    }
    let channels = mean.len();
    let (means, deviations) = joined.split_at_mut(channels);
    let count = instructions().dispatch(Join(x, lanes, parts, means, deviations));
    for ((to, from), (var, deviation)) in mean.iter_mut().zip(means).zip(var.iter_mut().zip(deviations)) {
        *to = *from as f32;
        // Rounding can leave a tiny negative value where all inputs are equal; NaN must stay NaN.
        let value = *deviation / count;
        *var = if value < 0.0 { 0.0 } else { value as f32 };
    }
}

/// The coefficients of the normalisation, a value a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalise<'a> {
    /// Batch mean.
    pub(super) mean: &'a [f32],
    /// gamma / sqrt(var + epsilon).
    pub(super) scale: &'a [f32],
    /// beta.
    pub(super) beta: &'a [f32],
}

/// Sums over one part of g and of g * (x - mean), for each lane.
struct PartSums<'a, const RELU: bool> {
    x: &'a [f32],
    dy: &'a [f32],
    normalise: Normalise<'a>,
    /// First half: sums of g; second half: sums of g * (x - mean).
    out: &'a mut [f64],
}

impl<const RELU: bool> WithSimd for PartSums<'_, RELU> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, normalise, out } = self;
        let width = normalise.mean.len();
        let (sums, products) = out.split_at_mut(width);
        let (mut sum, mut product) = ([0.0f32; STRIP], [0.0f32; STRIP]);
        for first in (0..width).step_by(STRIP) {
            let strip = STRIP.min(width - first);
            let (sum, product) = (&mut sum[..strip], &mut product[..strip]);
            let [mean, scale, beta] =
                [normalise.mean, normalise.scale, normalise.beta].map(|c| vectors::<S>(&c[first..][..strip]));
            for (x, dy) in x.chunks(BLOCK_ROWS * width).zip(dy.chunks(BLOCK_ROWS * width)) {
                sum.fill(0.0);
                product.fill(0.0);
                let to = (S::as_mut_simd_f32s(sum).0, S::as_mut_simd_f32s(product).0);
                let (mut xs, mut dys) = (x.chunks_exact(GROUP * width), dy.chunks_exact(GROUP * width));
                for (x, dy) in (&mut xs).zip(&mut dys) {
                    let x = strips::<S, GROUP>(x, width, first, strip);
                    let dy = strips::<S, GROUP>(dy, width, first, strip);
                    add_sums::<S, RELU, GROUP>(simd, x, dy, [mean, scale, beta], (&mut *to.0, &mut *to.1));
                }
                for (x, dy) in xs.remainder().chunks_exact(width).zip(dys.remainder().chunks_exact(width)) {
                    let x = strips::<S, 1>(x, width, first, strip);
                    let dy = strips::<S, 1>(dy, width, first, strip);
                    add_sums::<S, RELU, 1>(simd, x, dy, [mean, scale, beta], (&mut *to.0, &mut *to.1));
                }
                for (total, &s) in sums[first..].iter_mut().zip(sum.iter()) {
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
fn add_sums<S: Simd, const RELU: bool, const R: usize>(
    simd: S,
    x: [&[S::f32s]; R],
    dy: [&[S::f32s]; R],
    [mean, scale, beta]: [&[S::f32s]; 3],
    (sums, products): (&mut [S::f32s], &mut [S::f32s]),
) {
    let n = sums.len();
    let (mean, scale, beta, products) = (&mean[..n], &scale[..n], &beta[..n], &mut products[..n]);
    let (x, dy) = (x.map(|row| &row[..n]), dy.map(|row| &row[..n]));
    for v in 0..n {
        let (mut sum, mut product) = (sums[v], products[v]);
        for r in 0..R {
            let d = simd.sub_f32s(x[r][v], mean[v]);
            let g = masked::<S, RELU>(simd, dy[r][v], d, scale[v], beta[v]);
            sum = simd.add_f32s(sum, g);
            product = simd.mul_add_e_f32s(g, d, product);
        }
        (sums[v], products[v]) = (sum, product);
    }
}

/// The normalised, scaled and shifted value: the one expression that forward pass, recomputation and mask share.
#[inline(always)]
pub(super) fn affine<S: Simd>(simd: S, d: S::f32s, scale: S::f32s, beta: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(d, scale, beta)
}

/// The gradient behind the rectifier: `dy` where the forward pass's output was positive, else zero.
#[inline(always)]
pub(super) fn masked<S: Simd, const RELU: bool>(
    simd: S,
    dy: S::f32s,
    d: S::f32s,
    scale: S::f32s,
    beta: S::f32s,
) -> S::f32s {
    if RELU {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.greater_than_f32s(affine(simd, d, scale, beta), zero), dy, zero)
    } else {
        dy
    }
}

/// Fills `out` (twice the width) with a part's lane sums of g and g * (x - mean). `x` and `dy` may be the tensor's
/// last few pixels, fewer than a super-row: then only their lanes are summed.
pub(super) fn part_sums(relu: bool, x: &[f32], dy: &[f32], normalise: Normalise<'_>, out: &mut [f64]) {
    out.fill(0.0);
    let arch = instructions();
    if relu {
        arch.dispatch(PartSums::<true> { x, dy, normalise, out });
    } else {
        arch.dispatch(PartSums::<false> { x, dy, normalise, out });
    }
}

/// Folds lane sums into channel sums, in order.
pub(super) fn fold_sums(parts: &[f64], width: usize, sums: &mut [f64], products: &mut [f64]) {
    let channels = sums.len();
    for part in parts.chunks_exact(2 * width) {
        let (s, p) = part.split_at(width);
        for (from, to) in [(s, &mut *sums), (p, &mut *products)] {
            for lane in from.chunks_exact(channels) {
                for (total, &value) in to.iter_mut().zip(lane) {
                    *total += value;
                }
            }
        }
    }
}
