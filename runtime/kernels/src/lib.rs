//! Fused CPU kernels for a training step in which only BatchNorm's gamma and beta learn, in NHWC layout.
//!
//! The kernels are plain functions over slices and know no ONNX Runtime, whose custom operators `nasbn-runtime` makes of
//! them. All are safe code, vectorised over channels and dispatched at run time to the best instruction set ([`pulp`]).
//! Their results do not depend on the number of threads. They are a crate of their own as they alone are built for speed
//! where everything else is built for size.

mod batch_norm;
mod depthwise;
mod dims;
mod elementwise;
mod error;
mod instructions;
mod lanes;
mod moments;
mod parallel;
mod pool;
mod samples;
mod signs;
mod taps;

pub use batch_norm::{Affine, BatchNorm, Gradients, SampleGradients, Statistics, Trained};
pub use depthwise::{Depthwise, Filter};
pub use dims::Dims;
pub use error::KernelError;
pub use parallel::{Parallel, Serial, Threads, for_each_part};
pub use pool::{global_avg_pool, global_avg_pool_grad};

#[cfg(test)]
mod tests;
