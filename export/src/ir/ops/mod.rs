//! Rules of the primitives: per file a family, per family shapes, gradients and reference values.
//!
//! Reference values are f64 and written as plain loops that can be compared with the formula by eye.
//! The functions return `None` if the inputs are not what the primitive works on.

pub mod batch_norm;
pub mod conv;
pub mod linear;
pub mod loss;
pub mod pointwise;
pub mod pool;
pub mod shuffle;
pub mod signs;

use ndarray::{ArrayD, ArrayView1, ArrayView2, ArrayView4, Ix1, Ix2, Ix4};

use super::{Dims, GraphError};
use nasbn_models::Shape;

/// The view of a tensor `[N, C, H, W]`.
fn image(array: &ArrayD<f64>) -> Option<ArrayView4<'_, f64>> {
    array.view().into_dimensionality::<Ix4>().ok()
}

/// The view of a matrix.
fn matrix(array: &ArrayD<f64>) -> Option<ArrayView2<'_, f64>> {
    array.view().into_dimensionality::<Ix2>().ok()
}

/// The view of a vector.
fn vector(array: &ArrayD<f64>) -> Option<ArrayView1<'_, f64>> {
    array.view().into_dimensionality::<Ix1>().ok()
}

/// The shape of an image value.
fn shape(dims: &Dims) -> Option<Shape> {
    match dims {
        Dims::Image(shape) => Some(*shape),
        _ => None,
    }
}
