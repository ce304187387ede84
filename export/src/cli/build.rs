//! `nasbn-export build`: the bundle of a space.

use std::{
    fs,
    io::{IsTerminal, Read},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use nasbn_models::{
    BnPlacement, Supernet,
    spec::{self, SpaceOptions},
    supernet::{MAX_CLASSES, MAX_IMAGE_SIDE, MIN_CLASSES},
};
use serde_json::json;

use super::{Failure, output};
use crate::bundle::write::{BuildOptions, Progress, write};

/// Longest space file that is read, bytes.
const MAX_SPACE_BYTES: u64 = 4 << 20;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Placement {
    /// Every candidate carries a BatchNorm, identity and pooling too
    EveryOperator,
    /// Only convolutions do
    Convolution,
}

#[derive(Args)]
#[command(before_help = "Examples:
  nasbn-export build --space nas-bench-macro --image-size 32 --classes 10 --out bundle
  nasbn-export build --space mobilenet --image-size 64 --classes 10 --width 0.5 --bn convolution --out bundle
  nasbn-export spaces mobilenet > mine.toml && nasbn-export build --space mine.toml --out bundle")]
pub struct BuildArgs {
    /// A built-in space, or a space file
    #[arg(long, value_name = "NAME|FILE")]
    space: String,
    /// Side of the square images, pixels [default: that of the space]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=MAX_IMAGE_SIDE as i64))]
    image_size: Option<u32>,
    /// Number of classes [default: that of the space]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(MIN_CLASSES as i64..=MAX_CLASSES as i64))]
    classes: Option<u32>,
    /// Factor of all channels but the image's and the classes'
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    width: f64,
    /// Which operators carry a BatchNorm
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = Placement::EveryOperator)]
    bn: Placement,
    /// Seed of the frozen weights that are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take the frozen weights from this safetensors file instead of drawing them
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    weights: Option<PathBuf>,
    /// Directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a bundle that is there already
    #[arg(long)]
    force: bool,
    /// Say what was written as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing but errors
    #[arg(long)]
    quiet: bool,
}

pub fn run(args: &BuildArgs) -> Result<(), Failure> {
    let supernet = supernet(args)?;
    let options = BuildOptions { seed: args.seed, weights: args.weights.clone(), force: args.force };
    let live = !args.quiet && std::io::stderr().is_terminal();
    let manifest = write(&supernet, &options, &args.out, &mut |Progress { done, total }| {
        if live {
            output::say_in_place(format_args!("{done} of {total} operators"));
        }
    });
    if live {
        output::say("");
    }
    let manifest = manifest?;
    let bytes: u64 = manifest.files.iter().map(|f| f.bytes).sum();
    if args.json {
        return output::json(&json!({
            "bundle": args.out,
            "space": supernet.name,
            "seed": args.seed,
            "weights": manifest.weights,
            "graphs": manifest.graphs.len(),
            "files": manifest.files.len() + 1,
            "bytes": bytes,
        }));
    }
    if !args.quiet {
        output::line(format_args!(
            "wrote {}: {}, {} graphs in {} files, {}",
            args.out.display(),
            supernet.name,
            manifest.graphs.len(),
            manifest.files.len() + 1,
            output::bytes(bytes)
        ))?;
    }
    Ok(())
}

/// The space that the arguments name.
fn supernet(args: &BuildArgs) -> Result<Supernet, Failure> {
    if !(args.width.is_finite() && args.width > 0.0 && args.width <= 16.0) {
        return Err(Failure::new(
            format!("--width {} is not possible", args.width),
            Some("use a factor above 0, like 0.5"),
        ));
    }
    let placement = match args.bn {
        Placement::EveryOperator => BnPlacement::EveryOperator,
        Placement::Convolution => BnPlacement::Convolution,
    };
    let options = SpaceOptions { image_size: args.image_size, classes: args.classes, width: args.width, placement };
    let text = match spec::builtin(&args.space) {
        Some(text) => text.to_owned(),
        None => read(&args.space)?,
    };
    spec::parse(&text, &args.space, &options).map_err(|e| Failure::new(&e, e.hint()))
}

fn read(space: &str) -> Result<String, Failure> {
    let names: Vec<&str> = spec::BUILTIN.iter().map(|(name, _)| *name).collect();
    let hint = || Some(format!("built-in spaces are {}; anything else is a file", names.join(", ")));
    let mut text = String::new();
    fs::File::open(space)
        .and_then(|file| file.take(MAX_SPACE_BYTES + 1).read_to_string(&mut text))
        .map_err(|e| Failure::new(format!("the space `{space}` cannot be read: {e}"), hint()))?;
    if text.len() as u64 > MAX_SPACE_BYTES {
        let message =
            format!("the space `{space}` has more than {}; no space file does", output::bytes(MAX_SPACE_BYTES));
        return Err(Failure::new(message, hint()));
    }
    Ok(text)
}
