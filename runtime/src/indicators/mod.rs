//! Indicators: numbers that rank networks. [`catalogue`] lists them; each other file measures some.
//!
//! A new indicator is a line of the catalogue, a function here, and a call of it in [`crate::score`].

pub mod bn;
pub mod catalogue;
pub mod eigen;
pub mod gradient;
pub mod ntk;
pub mod signs;
pub mod synflow;
pub mod uncertainty;
pub mod zen;
