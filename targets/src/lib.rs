//! Devices that nasbn runs on, the ONNX Runtime library for each, and packages for them.
//!
//! Depends on no other crate of the workspace: what a device needs is data.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod deploy;
pub mod device;
pub mod elf;
pub mod library;
pub mod package;
