//! A budget for the memory of the whole process: what work will take, and what is done so that it stays within.
//!
//! What is counted is what the kernel holds for the process (`VmRSS`, at its highest `VmHWM`; `ru_maxrss` to its parent):
//! the program, ONNX Runtime, images, parameters, sessions and activations. Before work begins, [`measure`] runs the heaviest
//! path ([`rows`]) at two small mini-batches, which tells what its sessions take and how activations grow;
//! [`plan`] chooses what fits from that; [`Watch`] looks whether it came so. Memory of an accelerator is not counted.

mod bytes;
mod heaviest;
mod limit;
mod plan;
mod probe;
mod resident;
mod watch;

pub use bytes::Bytes;
pub use heaviest::{heaviest_of, operators, rows};
pub use limit::limit;
pub use plan::{
    Ground, LEAST_BATCH, Linear, MARGIN_BYTES, MARGIN_PART, Plan, Request, Sessions, TooSmall, Way, Work, plan,
};
pub use probe::{Measured, PROBE_IMAGES, ProbeError, measure, standing, training};
pub use resident::{Resident, resident};
pub use watch::{Verdict, Watch};
