//! The fused kernels of [`nasbn_kernels`], and [`operators`], which wraps them as custom operators of the domain `nasbn`.

pub mod operators;

pub use nasbn_kernels::*;
