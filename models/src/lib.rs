//! What a supernet *is*: spaces, operators, shapes, paths, costs and the manifest of a bundle.
//!
//! Pure data and arithmetic: this crate knows no ONNX, no ONNX Runtime and no files, and is
//! `no_std` (with `alloc`; paths live in [`heapless`] vectors and allocate nothing).
//! The only optional part is the module `spec`, which reads space files and is left out on the device.
#![no_std]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

extern crate alloc;
#[cfg(any(test, feature = "spec"))]
extern crate std;

pub mod canonical;
pub mod cost;
pub mod manifest;
mod memory;
pub mod operator;
pub mod path;
pub mod program;
pub mod sample;
mod signature;
#[cfg(feature = "spec")]
pub mod spec;
pub mod supernet;
pub mod text;

pub use manifest::Manifest;
pub use operator::{Form, Layer, Operator, Width};
pub use path::{MAX_CHOICES, Path};
pub use program::{Primitive, Program, Step};
pub use supernet::{BnPlacement, Choice, Combine, Edge, Node, Selection, Supernet};

use serde::{Deserialize, Serialize};

/// Shape of one sample of a tensor; the batch dimension stands in front of it.
///
/// Units: channels, pixels, pixels. Vectors (logits) have height and width 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Number of channels.
    pub channels: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

impl Shape {
    /// A shape from its three extents.
    pub const fn new(channels: u32, height: u32, width: u32) -> Self {
        Self { channels, height, width }
    }

    /// Elements of one sample.
    pub const fn elements(&self) -> u64 {
        self.channels as u64 * self.height as u64 * self.width as u64
    }

    /// Pixels of one channel.
    pub const fn pixels(&self) -> u64 {
        self.height as u64 * self.width as u64
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
