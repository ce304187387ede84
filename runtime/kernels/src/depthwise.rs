//! Depthwise convolution and its gradient with respect to the input, in NHWC layout.
//!
//! ```text
//! y[n,ho,wo,c] = sum over i, j of x[n, ho*stride + i - pad, wo*stride + j - pad, c] * w[i,j,c]
//! dx[n,h,w,c]  = sum over i, j of dy[n, (h + pad - i) / stride, (w + pad - j) / stride, c] * w[i,j,c],
//!                where both divisions leave no remainder
//! ```
//!
//! Values outside a tensor are zero. The gradient gathers: it inserts no zeroes and adds into nothing.

use super::dims::check_len;
use super::taps::{Band, Columns, MOST_TAPS, RowPlan};
use super::{Dims, KernelError, Parallel, for_each_part};

/// Work of a part in multiplications, at least: below, handing it to a thread costs more than it saves.
const PART_MULTIPLICATIONS: usize = 256 << 10;
/// More parts than this balance no better.
const MOST_PARTS: usize = 32;
/// An output with fewer values may well be in a cache already, and reading it before it is written only costs time:
/// 8 % at 3 MB, while it saves 40 % at 12 MB.
const FAR_VALUES: usize = 1 << 20;

/// The sizes of a square depthwise filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    kernel: usize,
    stride: usize,
    pad: usize,
}

impl Filter {
    /// Checks and keeps the attributes of an operator.
    ///
    /// # Errors
    /// [`KernelError::Attribute`] unless `kernel` is 1 to 15, `stride` 1 to 15 and `pad` 0 to `kernel` - 1.
    pub fn new(operator: &'static str, kernel: i64, stride: i64, pad: i64) -> Result<Self, KernelError> {
        let check = |attribute, found: i64, least: i64, most: i64, expected| {
            if (least..=most).contains(&found) {
                Ok(found as usize)
            } else {
                Err(KernelError::Attribute { operator, attribute, found: found.to_string(), expected })
            }
        };
        let most = MOST_TAPS as i64;
        Ok(Self {
            kernel: check("kernel", kernel, 1, most, "1 to 15")?,
            stride: check("stride", stride, 1, most, "1 to 15")?,
            pad: check("pad", pad, 0, kernel - 1, "0 to kernel - 1")?,
        })
    }

    /// Side of the filter.
    #[must_use]
    pub const fn kernel(self) -> usize {
        self.kernel
    }

    /// Outputs along an axis with `size` inputs, or nothing where the filter does not fit.
    #[must_use]
    pub fn outputs(self, size: usize) -> Option<usize> {
        Some((size + 2 * self.pad).checked_sub(self.kernel)? / self.stride + 1)
    }

    /// The shape of y for an input of shape `x`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where the filter is larger than the padded input.
    pub fn output(self, operator: &'static str, x: Dims) -> Result<Dims, KernelError> {
        match (self.outputs(x.height()), self.outputs(x.width())) {
            (Some(h), Some(w)) => Dims::new(operator, x.batch(), h, w, x.channels()),
            _ => Err(KernelError::Shape {
                operator,
                tensor: "x",
                found: x.to_onnx().to_vec(),
                expected: format!("[N,H,W,C] with H and W at least {}", self.kernel - 2 * self.pad),
            }),
        }
    }
}

/// A depthwise convolution together with its plan for the shape that it last met.
#[derive(Debug, Clone)]
pub struct Depthwise {
    operator: &'static str,
    filter: Filter,
    planned: Option<(bool, Dims)>,
    rows: Vec<RowPlan>,
    columns: Vec<Columns>,
}

impl Depthwise {
    /// A convolution that reports its errors as `operator`.
    #[must_use]
    pub const fn new(operator: &'static str, filter: Filter) -> Self {
        Self { operator, filter, planned: None, rows: Vec::new(), columns: Vec::new() }
    }

    /// Writes y of shape `filter.output(dims)` for x of shape `dims` and w `[kernel, kernel, C]`.
    ///
    /// # Errors
    /// [`KernelError::Length`] or [`KernelError::Shape`] where something does not fit, [`KernelError::Pool`].
    pub fn forward(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        x: &[f32],
        w: &[f32],
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        let out = self.filter.output(self.operator, dims)?;
        check_len(self.operator, "x", x.len(), dims.values())?;
        check_len(self.operator, "y", y.len(), out.values())?;
        if self.planned != Some((true, dims)) {
            self.plan_forward(dims, out);
            self.planned = Some((true, dims));
        }
        self.sweep(pool, dims, out, x, w, y)
    }

    /// Writes dx of shape `dims` for dy of shape `filter.output(dims)` and w `[kernel, kernel, C]`.
    ///
    /// # Errors
    /// As [`Depthwise::forward`].
    pub fn gradient(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        dy: &[f32],
        w: &[f32],
        dx: &mut [f32],
    ) -> Result<(), KernelError> {
        let source = self.filter.output(self.operator, dims)?;
        check_len(self.operator, "dy", dy.len(), source.values())?;
        check_len(self.operator, "dx", dx.len(), dims.values())?;
        if self.planned != Some((false, dims)) {
            self.plan_gradient(source, dims);
            self.planned = Some((false, dims));
        }
        self.sweep(pool, source, dims, dy, w, dx)
    }

    fn plan_forward(&mut self, source: Dims, out: Dims) {
        let Filter { kernel, stride, pad } = self.filter;
        self.rows.clear();
        self.rows.extend((0..out.height()).map(|row| {
            let at = |i: usize| (row * stride + i).checked_sub(pad).filter(|&r| r < source.height());
            RowPlan::new((0..kernel).filter_map(|i| Some((at(i)? as u32, i as u32))))
        }));
        self.columns.clear();
        self.columns.push(Columns {
            taps: kernel,
            base: 0usize.wrapping_sub(pad),
            advance: stride,
            filter_first: 0,
            filter_step: 1,
            out_first: 0,
            out_step: 1,
            outputs: out.width(),
        });
    }

    fn plan_gradient(&mut self, source: Dims, out: Dims) {
        let Filter { kernel, stride, pad } = self.filter;
        self.rows.clear();
        self.rows.extend((0..out.height()).map(|row| {
            let at = |i: usize| {
                let distance = (row + pad).checked_sub(i)?;
                (distance % stride == 0).then_some(distance / stride).filter(|&r| r < source.height())
            };
            RowPlan::new((0..kernel).filter_map(|i| Some((at(i)? as u32, i as u32))))
        }));
        self.columns.clear();
        // Columns of one remainder modulo the stride gather with the same taps: those j with j = first (mod stride),
        // largest j first, as it belongs to the leftmost column of dy.
        self.columns.extend((0..stride.min(out.width())).map(|class| {
            let first = (class + pad) % stride;
            let taps = kernel.saturating_sub(first).div_ceil(stride);
            Columns {
                taps,
                base: ((class + pad - first) / stride + 1).wrapping_sub(taps),
                advance: 1,
                filter_first: first + stride * taps.saturating_sub(1),
                filter_step: 0usize.wrapping_sub(stride),
                out_first: class,
                out_step: stride,
                outputs: (out.width() - class).div_ceil(stride),
            }
        }));
    }

    fn sweep(
        &self,
        pool: &dyn Parallel,
        source_dims: Dims,
        out_dims: Dims,
        source: &[f32],
        filter: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let (kernel, channels) = (self.filter.kernel, out_dims.channels());
        check_len(self.operator, "w", filter.len(), kernel * kernel * channels)?;
        let source_row = source_dims.width() * channels;
        let source_image = source_dims.height() * source_row;
        let out_row = out_dims.width() * channels;
        let rows = out_dims.batch() * out_dims.height();
        let row_work = out_row * kernel * kernel;
        let part_rows = PART_MULTIPLICATIONS.div_ceil(row_work).max(rows.div_ceil(MOST_PARTS));
        let far = out.len() >= FAR_VALUES;
        for_each_part(pool, out, part_rows * out_row, &|part, out| {
            Band {
                source,
                source_image,
                source_row,
                filter,
                kernel,
                channels,
                plans: &self.rows,
                columns: &self.columns,
                first: part * part_rows,
                out,
                out_row,
                far,
            }
            .run();
        })
    }
}
