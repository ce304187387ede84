//! The state of the machine that is measured on: what it is, how its clocks are set, how warm it is, what it draws.
//!
//! Everything is read from files below a root directory (`/`; tests point elsewhere), without root rights, and nothing is
//! ever changed. A file that is missing leaves its field empty; one that is there but cannot be read, or holds something
//! else, is told in [`Board::notes`] besides. `docs/board.md` says which file each field comes from.

mod clock;
pub mod energy;
mod files;
#[cfg(test)]
pub(crate) mod fixtures;
mod mode;
pub mod power;
mod release;
#[cfg(test)]
mod tests;
mod thermal;
pub mod throttle;
mod warnings;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::{
    clock::{Cores, CpuPolicy, Gpu},
    mode::{NamedMode, PowerMode},
    thermal::Zone,
};
use self::{
    files::Files,
    power::{PowerError, RailReading, Rails},
};
use crate::bounded;

/// Most entries of a list that are read from a file: more than any machine has of anything.
const MOST_ENTRIES: usize = 1 << 16;

/// The state of a machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// What it is: `NVIDIA Jetson Nano Developer Kit`, a PC's product name, or the processor's name.
    pub model: Option<String>,
    /// The processor, by its own name; most ARM processors tell none.
    pub processor: Option<String>,
    /// NVIDIA's discrete GPUs, by the name that their driver gives.
    pub accelerators: Vec<String>,
    /// Release of Jetson Linux: `R35.4.1`.
    pub l4t: Option<String>,
    /// JetPack that the release belongs to: `5.1.2`.
    pub jetpack: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Power mode of a Jetson.
    pub power_mode: Option<PowerMode>,
    /// Cores of the CPU.
    pub cores: Option<Cores>,
    /// Clocks of the CPU.
    #[serde(deserialize_with = "bounded::list::<MOST_ENTRIES, _, _>")]
    pub cpu: Vec<CpuPolicy>,
    /// Clock of an integrated GPU.
    pub gpu: Option<Gpu>,
    /// Thermal zones.
    #[serde(deserialize_with = "bounded::list::<MOST_ENTRIES, _, _>")]
    pub thermal: Vec<Zone>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Power rails.
    #[serde(deserialize_with = "bounded::list::<MOST_ENTRIES, _, _>")]
    pub rails: Vec<RailReading>,
    /// Power of the whole board or module in mW, if its rails tell it.
    pub total_milliwatts: Option<f64>,
    /// What was there but gave nothing, and why.
    #[serde(deserialize_with = "bounded::list::<MOST_ENTRIES, _, _>")]
    pub notes: Vec<String>,
}

impl Board {
    /// Reads the state below `root`.
    pub fn read(root: &Path) -> Self {
        let files = Files::new(root);
        let l4t = release::read(&files);
        let (rails, total_milliwatts) = rails(&files);
        Self {
            model: model(&files),
            processor: processor(&files),
            accelerators: accelerators(&files),
            jetpack: l4t.as_deref().and_then(release::jetpack),
            l4t,
            kernel: files.line("proc/sys/kernel/osrelease"),
            power_mode: mode::read(&files),
            cores: clock::cores(&files),
            cpu: clock::policies(&files),
            gpu: clock::gpu(&files),
            thermal: thermal::zones(&files),
            memory_bytes: memory(&files),
            rails,
            total_milliwatts,
            notes: files.into_notes(),
        }
    }

    /// Whether this is a Jetson: it has a release of Jetson Linux, or says so.
    pub fn is_jetson(&self) -> bool {
        self.l4t.is_some() || self.model.as_deref().is_some_and(|model| model.contains("Jetson"))
    }

    /// How the clocks are set, in words: the governor and the highest frequency that is allowed, of every policy of the CPU
    /// and of the GPU; none where the machine tells neither. Frequencies of the moment are not among them.
    pub fn clocks(&self) -> Option<String> {
        let cpu = self.cpu.iter().map(|p| (&p.name, &p.governor, p.max_khz));
        let gpu = self.gpu.iter().map(|g| (&g.name, &g.governor, g.max_hz.map(|hz| hz / 1000)));
        let said = |(name, governor, khz): (&String, &Option<String>, Option<u64>)| {
            let governor = governor.as_deref().map_or(String::new(), |governor| format!(" {governor}"));
            let most = khz.map_or(String::new(), |khz| format!(" to {} MHz", khz / 1000));
            format!("{name}{governor}{most}")
        };
        let clocks: Vec<String> = cpu.chain(gpu).map(said).collect();
        (!clocks.is_empty()).then(|| clocks.join(", "))
    }

    /// The warmest zone.
    pub fn warmest(&self) -> Option<&Zone> {
        let warm = self.thermal.iter().filter(|zone| zone.celsius.is_some());
        warm.max_by(|a, b| a.celsius.partial_cmp(&b.celsius).unwrap_or(std::cmp::Ordering::Equal))
    }
}

/// The device tree's model, else the product name of the firmware, else the processor's name.
fn model(files: &Files<'_>) -> Option<String> {
    files
        .line("proc/device-tree/model")
        .or_else(|| files.line("sys/class/dmi/id/product_name"))
        .or_else(|| processor(files))
}

/// The processor's name.
fn processor(files: &Files<'_>) -> Option<String> {
    field(&files.text("proc/cpuinfo")?, "model name")
}

/// `Model:` of every GPU of NVIDIA's driver, in the order of their addresses.
fn accelerators(files: &Files<'_>) -> Vec<String> {
    let directory = "proc/driver/nvidia/gpus";
    let gpus = files.names(directory, "");
    let name = |gpu: String| field(&files.text(&format!("{directory}/{gpu}/information"))?, "Model");
    gpus.into_iter().filter_map(name).collect()
}

/// The value in the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })?;
    let sound = (1..=256).contains(&value.len()) && !value.chars().any(char::is_control);
    sound.then(|| value.to_owned())
}

fn memory(files: &Files<'_>) -> Option<u64> {
    let path = "proc/meminfo";
    let text = files.text(path)?;
    let kilobytes = field(&text, "MemTotal").and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok());
    if kilobytes.is_none() {
        files.note(path, "does not say `MemTotal:` in kB");
    }
    kilobytes?.checked_mul(1024)
}

/// All rails that can be read, and the total if all its parts can.
fn rails(files: &Files<'_>) -> (Vec<RailReading>, Option<f64>) {
    let Some(rails) = Rails::find_in(files) else { return (Vec::new(), None) };
    let mut readings = Vec::new();
    for reading in rails.read_each() {
        match reading {
            Ok(reading) => readings.push(reading),
            // As all notes: below the root.
            Err(PowerError::Rail { rail, path, reason }) => {
                let path = path.strip_prefix(files.root()).unwrap_or(&path).display();
                files.note("power:", format_args!("rail {rail}: {path} {reason}"));
            }
            Err(error) => files.note("power:", error),
        }
    }
    let parts: Vec<f64> = readings.iter().filter(|rail| rail.in_total).map(|rail| rail.milliwatts).collect();
    let whole = !parts.is_empty() && parts.len() == rails.total_names().len();
    (readings, whole.then(|| parts.iter().sum()))
}
