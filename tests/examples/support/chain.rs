//! The networks of `jetson-nano-cnn`, layer by layer, from what its README says of them.

use anyhow::{Context, Result, bail, ensure};
use nasbn_runtime::{
    latency::Sample,
    table::{Row, Table},
};

/// Most operations a millisecond of a Jetson Nano in single precision: 128 cores, a multiply-add each, at 921.6 MHz.
const OPERATIONS_PER_MS: f64 = 128.0 * 2.0 * 921.6e3;
/// Most bytes a millisecond of its memory (64 bits wide, 25.6 GB/s).
const BYTES_PER_MS: f64 = 25.6e6;
/// Bytes of a number.
const BYTES: f64 = 4.0;
/// Channels of the images.
const COLOURS: u64 = 3;
/// Outputs of the last layer.
const CLASSES: u64 = 10;
/// Largest kernel.
const LARGEST: u64 = 7;
/// Operators: ordinary convolutions by kernel, depthwise ones by kernel, those of 1 x 1 behind these, the linear layer.
const OPERATORS: usize = 2 * LARGEST as usize + 2;

/// A network and what was measured of it.
pub struct Chain {
    /// `ordinary` (one kernel), `mixed` (two that alternate) or `depthwise`.
    pub kind: &'static str,
    /// Multiply-accumulates, a bias counting as one an output.
    pub macs: u64,
    pub latency_ms: f64,
    /// Energy of the GPU's rail in one run.
    pub energy_mj: f64,
    layers: Vec<Layer>,
}

/// A layer: sides of its square maps are of its input and output, weights without biases.
struct Layer {
    operator: usize,
    weights: u64,
    /// Numbers of the input and of the output, each with its channels.
    numbers: (u64, u64),
    /// Channels of the output; a bias each.
    biases: u64,
    /// Weights that meet in one output.
    depth: u64,
}

impl Layer {
    fn macs(&self) -> u64 {
        self.numbers.1 * (self.depth + 1)
    }

    /// The least time that the board needs for it, milliseconds: for its operations, or for its weights, input and output.
    fn ms(&self) -> f64 {
        let operations = 2.0 * (self.numbers.1 * self.depth) as f64;
        let bytes = BYTES * (self.weights + self.biases + self.numbers.0 + self.numbers.1) as f64;
        (operations / OPERATIONS_PER_MS).max(bytes / BYTES_PER_MS)
    }
}

impl Chain {
    /// As a correction sees it.
    pub fn sample(&self, measured: f64) -> Sample {
        let (mut times, mut counts) = (vec![0.0; OPERATORS], vec![0.0; OPERATORS]);
        for layer in &self.layers {
            times[layer.operator] += layer.ms();
            counts[layer.operator] += 1.0;
        }
        Sample { sum: times.iter().sum(), times, counts, measured }
    }
}

/// Every network of the file.
pub fn read(text: &str) -> Result<Vec<Chain>> {
    let table = Table::parse(text)?;
    let names = ["layers", "filters", "kernels", "input_size", "depthwise_separable", "params", "macs", "latency_ms"];
    let columns = names.into_iter().chain(["gpu_energy_mj"]).map(|name| table.column(name));
    let columns: Vec<usize> = columns.collect::<Result<_, _>>()?;
    let one = |row: &Row| chain(row, &columns).with_context(|| format!("line {}", row.line));
    table.rows().iter().map(one).collect()
}

fn chain(row: &Row, columns: &[usize]) -> Result<Chain> {
    let field = |i: usize| &row.fields[columns[i]];
    let whole = |i: usize| field(i).parse::<u64>().with_context(|| format!("`{}` is no number", field(i)));
    let number = |i: usize| field(i).parse::<f64>().with_context(|| format!("`{}` is no number", field(i)));
    let kernels: Vec<u64> = field(2).split('-').map(str::parse).collect::<Result<_, _>>().context("kernels")?;
    let (count, filters, mut side, depthwise) = (whole(0)?, whole(1)?, whole(3)?, field(4) == "1");
    ensure!(kernels.iter().all(|kernel| (1..=LARGEST).contains(kernel)), "a kernel of {} is not known", field(2));
    let mixed = kernels.len() > 1;
    let (mut layers, mut channels, mut padding) = (Vec::new(), COLOURS, 2);
    for i in 0..count {
        let kernel = kernels[i as usize % kernels.len()];
        let turns = if depthwise {
            kernel == 3
        } else if mixed {
            kernel % 2 == 1
        } else {
            kernel == 1 || kernel == 3
        };
        padding = if turns { 1 } else { padding };
        let after = (side + 2 * padding + 1).checked_sub(kernel).context("a map is smaller than its kernel")?;
        let (before, area, at) = (channels * side * side, after * after, kernel as usize - 1);
        if depthwise {
            let (weights, numbers) = (channels * kernel * kernel, (before, channels * area));
            layers.push(Layer {
                operator: LARGEST as usize + at,
                weights,
                numbers,
                biases: channels,
                depth: kernel * kernel,
            });
            let numbers = (channels * area, filters * area);
            let operator = OPERATORS - 2;
            layers.push(Layer { operator, weights: channels * filters, numbers, biases: filters, depth: channels });
        } else {
            let depth = channels * kernel * kernel;
            let numbers = (before, filters * area);
            layers.push(Layer { operator: at, weights: depth * filters, numbers, biases: filters, depth });
        }
        (side, channels) = (after, filters);
    }
    let flat = channels * side * side;
    let (numbers, operator) = ((flat, CLASSES), OPERATORS - 1);
    layers.push(Layer { operator, weights: flat * CLASSES, numbers, biases: CLASSES, depth: flat });
    let params: u64 = layers.iter().map(|layer| layer.weights + layer.biases).sum();
    let macs: u64 = layers.iter().map(Layer::macs).sum();
    if (params, macs) != (whole(5)?, whole(6)?) {
        bail!("{params} parameters and {macs} MACs are expected, the table has {} and {}", field(5), field(6));
    }
    let kind = if depthwise {
        "depthwise"
    } else if mixed {
        "mixed"
    } else {
        "ordinary"
    };
    Ok(Chain { kind, macs, latency_ms: number(7)?, energy_mj: number(8)?, layers })
}
