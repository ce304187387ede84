//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

use super::{running::RunArgs, training::Graphs};
use crate::{composite::ReferenceOptions, data::DataSource};

/// Bundle, and what runs it.
#[derive(Args)]
pub struct BundleArgs {
    /// Bundle that `nasbn-export build` wrote
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The ONNX Runtime library.
#[derive(Args)]
pub struct LibraryArgs {
    /// ONNX Runtime library to load [default: $ORT_DYLIB_PATH, the provisioned one, the system's]
    #[arg(long, value_name = "FILE")]
    pub ort_library: Option<PathBuf>,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Images.
#[derive(Args)]
pub struct DataArgs {
    /// Images: cifar10:DIR, cifar100:DIR, images:DIR or digits (built in)
    #[arg(long, value_name = "SOURCE")]
    pub data: DataSource,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Images for a command that may do without.
#[derive(Args)]
pub struct OptionalDataArgs {
    /// Images: cifar10:DIR, cifar100:DIR, images:DIR or digits (built in); needed only for indicators that look at some
    #[arg(long, value_name = "SOURCE")]
    pub data: Option<DataSource>,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// How images are read.
#[derive(Args)]
pub struct ReadingArgs {
    /// Leave out images that cannot be read, and say which
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Share of the images held back for validation, where the source has no such part of its own
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub validation_fraction: f64,
}

/// How results are said.
#[derive(Args)]
pub struct OutputArgs {
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No words but errors, no progress; with --json only the JSON
    #[arg(long)]
    pub quiet: bool,
}

/// Which paths.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct PathsArgs {
    /// Paths to take: a CSV file with a column `path` (or `arch`, if it has no `path`), or a path a line; - for
    /// stdin
    #[arg(long, value_name = "FILE")]
    pub paths: Option<PathBuf>,
    /// Take N random paths, all of different networks
    #[arg(long, value_name = "N")]
    pub random: Option<usize>,
}

/// How validation loss and accuracy are measured.
#[derive(Args)]
pub struct ValidationArgs {
    /// Images in a mini-batch
    #[arg(long, default_value_t = 64, value_parser = batch)]
    pub batch: u32,
    /// Mini-batches on which BatchNorm statistics are recalibrated for every path
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub recalibrate: u32,
    /// Validate on N images drawn at random [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub validation_images: Option<u32>,
    /// Which graphs statistics are recalibrated with [default: fused on the CPU, portable elsewhere]
    #[arg(long, value_enum)]
    pub graphs: Option<Graphs>,
}

/// How uncertainty is measured.
#[derive(Args)]
pub struct McArgs {
    /// Random mini-batches of training images whose statistics the uncertainty indicators compare
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub mc_batches: u32,
    /// Validation images that uncertainty is measured on; all of them if there are fewer
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub mc_images: u32,
}

/// The reference sample that the composite is measured on.
#[derive(Args, Clone, Copy)]
pub struct ReferenceArgs {
    /// Random paths that the composite is measured on, for each of three draws of images; the rest is its table's
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=100_000))]
    pub reference_paths: u32,
    /// Seed of these paths and images
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub reference_seed: u64,
}

impl ReferenceArgs {
    /// As the library asks for them.
    pub fn options(self) -> ReferenceOptions {
        ReferenceOptions {
            paths: self.reference_paths as usize,
            seed: self.reference_seed,
            ..ReferenceOptions::default()
        }
    }
}

/// Images in a mini-batch whose statistics are taken.
fn batch(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(1) => Err("the statistics of one image are undefined where a BatchNorm sees one pixel (variance 0); \
                      at least 2 are needed"
            .into()),
        Ok(batch @ 2..=65536) => Ok(batch),
        _ => Err("a whole number from 2 to 65536 is needed".into()),
    }
}
