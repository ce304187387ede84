//! Memory of activations: one region that all sessions share.
//!
//! ONNX Runtime's own choices do not fit hundreds of small sessions that hand large tensors on: an arena a
//! session keeps memory that the next one needs, and the system's allocator gives large tensors back to
//! the kernel at every step (which then zeroes the pages again). Measured on a training step of
//! `nas-bench-macro` 22212220, batch 64, 2 threads: 380 ms and 640 MB with the system's allocator, 245 ms
//! and 690 MB with its thresholds raised; the tensors that are alive at once are 310 MB.
//! A first-fit allocator over one address range keeps them near that, and touches no page twice for the kernel.

mod free_list;
mod register;

pub use free_list::{ALIGNMENT, FreeList};
pub use register::{Lasting, Registration, Usage, register};
