//! Latency on the device: blocks and whole networks measured with their inference graphs, and the table that predicts any
//! network's from its blocks.

pub mod bench;
mod blocks;
mod correction;
mod energy;
mod error;
mod fit;
pub mod import;
pub mod record;
mod stopwatch;
mod subject;
mod table;
mod timing;

pub use blocks::{Block, distinct};
pub use correction::{Correction, Measured};
pub use error::PredictionError;
pub use fit::{Fitted, Method, Sample};
pub use stopwatch::{Rules, Verdict, Visit, done, measure};
pub use subject::{GivenShape, Subject, SubjectError};
#[cfg(test)]
pub(crate) use table::tests::table as test_table;
pub use table::{BlockTime, Conditions, IMPORTED, LatencyTable, MOST_IMAGES, NetworkTime, TableError};
pub use timing::{NOISY, Statistic, Timing, nanoseconds};
