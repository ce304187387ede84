//! Devices that nasbn runs on, and the ONNX Runtime library for them.
//!
//! Depends on no other crate of the workspace: what a device needs is data.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod elf;
pub mod library;
