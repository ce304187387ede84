//! Clocks: cpufreq policies, cores, the GPU's devfreq.
//!
//! Files of a policy are those of the kernel's `Documentation/admin-guide/pm/cpufreq.rst` (kHz), of a devfreq device
//! those of `Documentation/ABI/testing/sysfs-class-devfreq` (Hz).

use serde::{Deserialize, Serialize};

use super::files::Files;

const CPU: &str = "sys/devices/system/cpu";
/// What names of a Jetson's GPU hold: TX2, Xavier, Orin on JetPack 5, and the Nano and Orin on JetPack 6.
const GPU_NAMES: [&str; 4] = ["gp10b", "gv11b", "ga10b", "gpu"];
/// Cores that a list may name.
const MOST_CORES: u32 = 4096;

/// Cores that share a clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuPolicy {
    /// `policy0`, or `cpu0` on old kernels.
    pub name: String,
    /// What chooses the frequency: `performance`, `schedutil`, `ondemand`.
    pub governor: Option<String>,
    /// Frequency now, in kHz.
    pub current_khz: Option<u64>,
    /// Lowest frequency that is allowed now.
    pub min_khz: Option<u64>,
    /// Highest frequency that is allowed now, by the power mode, by a user or by heat.
    pub max_khz: Option<u64>,
    /// Highest frequency that the hardware has.
    pub highest_khz: Option<u64>,
}

/// The GPU's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Name of the device: `57000000.gpu`, `17000000.ga10b`.
    pub name: String,
    /// What chooses the frequency: `nvhost_podgov`, `performance`.
    pub governor: Option<String>,
    /// Frequency now, in Hz.
    pub current_hz: Option<u64>,
    /// Lowest frequency that is allowed now.
    pub min_hz: Option<u64>,
    /// Highest frequency that is allowed now.
    pub max_hz: Option<u64>,
    /// Highest frequency that the hardware has.
    pub highest_hz: Option<u64>,
}

/// Cores of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// Those that run.
    pub online: u32,
    /// Those that there are; a power mode may switch some off.
    pub present: Option<u32>,
}

/// All policies.
pub(super) fn policies(files: &Files<'_>) -> Vec<CpuPolicy> {
    let directory = format!("{CPU}/cpufreq");
    let mut found: Vec<(String, String)> =
        files.names(&directory, "policy").into_iter().map(|name| (format!("{directory}/{name}"), name)).collect();
    if found.is_empty() {
        let cores = files.names(CPU, "cpu").into_iter().map(|name| (format!("{CPU}/{name}/cpufreq"), name));
        found = cores.filter(|(path, _)| files.exists(&format!("{path}/scaling_governor"))).collect();
    }
    found.into_iter().filter_map(|(path, name)| policy(files, &path, name)).collect()
}

/// A policy; none if even its governor cannot be read, as where all its cores are off.
fn policy(files: &Files<'_>, path: &str, name: String) -> Option<CpuPolicy> {
    let file = |name: &str| format!("{path}/{name}");
    let governor = files.line(&file("scaling_governor"));
    if governor.is_none() && files.exists(&file("scaling_governor")) {
        return None;
    }
    let policy = CpuPolicy {
        name,
        governor,
        current_khz: files.count(&file("scaling_cur_freq")),
        min_khz: files.count(&file("scaling_min_freq")),
        max_khz: files.count(&file("scaling_max_freq")),
        highest_khz: files.count(&file("cpuinfo_max_freq")),
    };
    (policy.governor.is_some() || policy.max_khz.is_some()).then_some(policy)
}

/// How many cores there are.
pub(super) fn cores(files: &Files<'_>) -> Option<Cores> {
    let counted = |name: &str| {
        let path = format!("{CPU}/{name}");
        let line = files.line(&path)?;
        let count = list_length(&line);
        if count.is_none() {
            files.note(&path, "is no list of cores such as `0-3`");
        }
        count
    };
    Some(Cores { online: counted("online")?, present: counted("present") })
}

/// How many numbers a list such as `0-3,6` has.
fn list_length(list: &str) -> Option<u32> {
    let mut count = 0;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last >= MOST_CORES {
            return None;
        }
        count += last - first + 1;
    }
    (count <= MOST_CORES).then_some(count)
}

/// The clock of an integrated GPU.
pub(super) fn gpu(files: &Files<'_>) -> Option<Gpu> {
    let (path, name) = gpu_path(files)?;
    let file = |name: &str| format!("{path}/{name}");
    let highest = || {
        let text = files.text(&file("available_frequencies"))?;
        text.split_whitespace().filter_map(|frequency| frequency.parse().ok()).max()
    };
    let gpu = Gpu {
        name,
        governor: files.line(&file("governor")),
        current_hz: files.count(&file("cur_freq")),
        min_hz: files.count(&file("min_freq")),
        max_hz: files.count(&file("max_freq")),
        highest_hz: highest(),
    };
    (gpu.governor.is_some() || gpu.current_hz.is_some() || gpu.max_hz.is_some()).then_some(gpu)
}

/// Where the devfreq device of the GPU is: among all of them by its name, or below the GPU.
fn gpu_path(files: &Files<'_>) -> Option<(String, String)> {
    let is_gpu = |name: &String| GPU_NAMES.iter().any(|part| name.contains(part));
    let class = "sys/class/devfreq";
    if let Some(name) = files.names(class, "").into_iter().find(is_gpu) {
        return Some((format!("{class}/{name}"), name));
    }
    let platform = "sys/devices/platform";
    let below = files.names(platform, "").into_iter().filter(is_gpu).map(|name| format!("{platform}/{name}"));
    std::iter::once("sys/devices/gpu.0".to_owned()).chain(below).find_map(|device| {
        let directory = format!("{device}/devfreq");
        let name = files.names(&directory, "").into_iter().next()?;
        Some((format!("{directory}/{name}"), name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(list_length("0-3"), Some(4));
        assert_eq!(list_length("0"), Some(1));
        assert_eq!(list_length("0-1,4,6-7"), Some(5));
        for rubbish in ["", "a", "3-1", "0-4294967295", "0-4095,0-4095", "-1"] {
            assert_eq!(list_length(rubbish), None, "{rubbish}");
        }
    }
}
