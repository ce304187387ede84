//! The runtime of nasbn: adapts, scores and searches BatchNorm-only supernets through ONNX Runtime.
//!
//! It knows bundles and ONNX Runtime, and no deep-learning framework. All command-line words are in
//! [`cli`]; everything else is a library with typed errors.

pub mod adapt;
pub mod analyze;
pub mod arena;
mod atomic;
pub mod board;
mod bounded;
pub mod checkpoint;
pub mod cli;
pub mod composite;
pub mod data;
pub mod engine;
pub mod evaluate;
pub mod indicators;
pub mod journal;
pub mod kernels;
pub mod latency;
pub mod memory;
pub mod network;
pub mod ort_library;
pub mod parameters;
pub mod path_table;
pub mod plot;
pub mod provider;
pub mod report;
pub mod score;
pub mod search;
pub mod subnet;
pub mod table;
#[cfg(test)]
mod testing;
pub mod validation;
