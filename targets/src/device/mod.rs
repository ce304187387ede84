//! Devices that nasbn runs on, as data: what each has, which ONNX Runtime library fits, and where every number is from.

mod catalog;
mod error;
mod facts;

pub use catalog::{Alike, Catalog, Jetpack, catalog};
pub use error::DeviceError;
pub use facts::{
    Board, Device, Gpu, GpuLibrary, GpuOrigin, Jetpacks, Memory, Models, Power, Precision, Provider, Source,
};

#[cfg(test)]
mod tests;
