//! Devices that nasbn runs on, the ONNX Runtime library for each, and packages for them.
//!
//! What a device needs is data. Of the other crates it knows how to tell whether a bundle is whole.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod deploy;
pub mod device;
pub mod elf;
pub mod library;
pub mod package;
