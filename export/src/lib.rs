//! Turns supernets into plain ONNX graphs: forward, backward and inference, gradients derived here.
//!
//! Knows ONNX's protobuf and no ONNX Runtime. With the feature `cli` (the default) it also writes
//! bundles and is the program `nasbn-export`; without it, it is what the device links to read
//! bundles and to write a path as a network of its own.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod autodiff;
pub mod bundle;
#[cfg(feature = "cli")]
pub mod cli;
pub mod ir;
pub mod lower;
#[cfg(feature = "manual")]
pub mod manual;
pub mod onnx;
pub mod operator_graphs;
pub mod ports;
pub mod reference;
pub mod roles;
pub mod subnet;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod weights;
