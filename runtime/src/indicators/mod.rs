//! Indicators that need images: pure mathematics on what a pass of the network gives.

pub mod eigen;
pub mod ntk;
pub mod signs;
