//! Global average pooling in NHWC layout.

use pulp::{Simd, WithSimd};

use super::dims::check_len;
use super::instructions::instructions;
use super::{Dims, KernelError, Parallel, for_each_part};

/// Values of a part handed to a thread, at least.
const PART_VALUES: usize = 16 << 10;

/// Number of images that make a part.
fn part_images(image: usize) -> usize {
    PART_VALUES.div_ceil(image)
}

/// `y[n,c]` = mean of `x[n,:,:,c]`: `x` is `[N,H,W,C]`, `y` is `[N,C]`.
///
/// # Errors
/// [`KernelError::Length`] where a slice does not fit `dims`, [`KernelError::Pool`].
pub fn global_avg_pool(pool: &dyn Parallel, dims: Dims, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    const OPERATOR: &str = "GlobalAvgPool";
    let channels = dims.channels();
    check_len(OPERATOR, "x", x.len(), dims.values())?;
    check_len(OPERATOR, "y", y.len(), dims.batch() * channels)?;
    let image = dims.values() / dims.batch();
    let images = part_images(image);
    for_each_part(pool, y, images * channels, &|part, y| {
        let from = x.chunks(images * image).nth(part).unwrap_or_default();
        for (x, y) in from.chunks_exact(image).zip(y.chunks_exact_mut(channels)) {
            instructions().dispatch(MeanOfRows { x, y });
        }
    })
}

/// `dx[n,h,w,c] = dy[n,c] / (H * W)`: `dy` is `[N,C]`, `dx` is `[N,H,W,C]` with shape `dims`.
///
/// # Errors
/// [`KernelError::Length`] where a slice does not fit `dims`, [`KernelError::Pool`].
pub fn global_avg_pool_grad(pool: &dyn Parallel, dims: Dims, dy: &[f32], dx: &mut [f32]) -> Result<(), KernelError> {
    const OPERATOR: &str = "GlobalAvgPoolGrad";
    let channels = dims.channels();
    check_len(OPERATOR, "dy", dy.len(), dims.batch() * channels)?;
    check_len(OPERATOR, "dx", dx.len(), dims.values())?;
    let image = dims.values() / dims.batch();
    let images = part_images(image);
    let scale = 1.0 / (dims.height() * dims.width()) as f32;
    for_each_part(pool, dx, images * image, &|part, dx| {
        let from = dy.chunks(images * channels).nth(part).unwrap_or_default();
        for (dy, dx) in from.chunks_exact(channels).zip(dx.chunks_exact_mut(image)) {
            let (first, rest) = dx.split_at_mut(channels);
            for (to, &from) in first.iter_mut().zip(dy) {
                *to = from * scale;
            }
            for row in rest.chunks_exact_mut(channels) {
                row.copy_from_slice(first);
            }
        }
    })
}

/// The mean over the rows of `x[rows, C]`, at most 16 rows summed in float32 before they go into a float64 sum.
struct MeanOfRows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for MeanOfRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const STRIP: usize = 64;
        const ROWS: usize = 16;
        let Self { x, y } = self;
        let channels = y.len();
        let scale = channels as f64 / x.len() as f64;
        for first in (0..channels).step_by(STRIP) {
            let strip = STRIP.min(channels - first);
            let mut total = [0.0f64; STRIP];
            for block in x.chunks(ROWS * channels) {
                let mut sum = [0.0f32; STRIP];
                for row in block.chunks_exact(channels) {
                    for (sum, &value) in sum.iter_mut().zip(&row[first..][..strip]) {
                        *sum += value;
                    }
                }
                for (total, &sum) in total.iter_mut().zip(&sum) {
                    *total += f64::from(sum);
                }
            }
            for (to, total) in y[first..][..strip].iter_mut().zip(total) {
                *to = (total * scale) as f32;
            }
        }
    }
}
