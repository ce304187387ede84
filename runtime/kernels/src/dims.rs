//! Shapes of activations in NHWC layout.

use super::KernelError;

/// Shape of an activation tensor `[N,H,W,C]`, all four at least one, whose number of values fits `isize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Dims {
    /// Checks and keeps a shape; `operator` names who asks, for the error.
    ///
    /// # Errors
    /// [`KernelError::Empty`] where a dimension is zero or the number of values overflows.
    pub fn new(
        operator: &'static str,
        batch: usize,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, KernelError> {
        let total =
            [batch, height, width, channels, size_of::<f64>()].iter().try_fold(1usize, |a, &b| a.checked_mul(b));
        match total {
            Some(bytes) if bytes > 0 && isize::try_from(bytes).is_ok() => Ok(Self { batch, height, width, channels }),
            _ => Err(KernelError::Empty { operator, batch, height, width, channels }),
        }
    }

    /// Reads the shape of a tensor as ONNX Runtime gives it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] unless there are four non-negative dimensions, [`KernelError::Empty`] where one is zero.
    pub fn from_onnx(operator: &'static str, tensor: &'static str, shape: &[i64]) -> Result<Self, KernelError> {
        let wrong = || KernelError::Shape { operator, tensor, found: shape.to_vec(), expected: "[N,H,W,C]".to_owned() };
        let &[n, h, w, c] = shape else { return Err(wrong()) };
        let size = |d: i64| usize::try_from(d).map_err(|_| wrong());
        Self::new(operator, size(n)?, size(h)?, size(w)?, size(c)?)
    }

    /// N: samples.
    #[must_use]
    pub const fn batch(self) -> usize {
        self.batch
    }

    /// H: rows of an image.
    #[must_use]
    pub const fn height(self) -> usize {
        self.height
    }

    /// W: pixels of a row.
    #[must_use]
    pub const fn width(self) -> usize {
        self.width
    }

    /// C: values of a pixel.
    #[must_use]
    pub const fn channels(self) -> usize {
        self.channels
    }

    /// N * H * W.
    #[must_use]
    pub const fn pixels(self) -> usize {
        self.batch * self.height * self.width
    }

    /// N * H * W * C.
    #[must_use]
    pub const fn values(self) -> usize {
        self.pixels() * self.channels
    }

    /// The shape as ONNX Runtime wants it.
    #[must_use]
    pub fn to_onnx(self) -> [i64; 4] {
        // Lossless: the constructor has bounded the product of all four by isize::MAX.
        [self.batch as i64, self.height as i64, self.width as i64, self.channels as i64]
    }
}

/// Refuses a slice that does not hold `expected` values.
pub(super) fn check_len(
    operator: &'static str,
    tensor: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Length { operator, tensor, found, expected }) }
}
