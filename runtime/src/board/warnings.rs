//! What about a board makes timings swing, and what its owner can do. Nothing is done here.

use super::{Board, CpuPolicy};

/// From this temperature on a board is called hot: Jetsons slow down at 84 to 99 °C, depending on the model.
const HOT_CELSIUS: f64 = 80.0;

impl Board {
    /// Things that make timings swing or slower than they need be, each with what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.mode_warning());
        if self.is_jetson() {
            warnings.extend(self.governor_warnings());
        }
        warnings.extend(self.limit_warnings());
        for zone in &self.thermal {
            if let Some(celsius) = zone.celsius.filter(|celsius| *celsius > HOT_CELSIUS) {
                let fan = if self.is_jetson() { ", or turn the fan up with `sudo jetson_clocks --fan`" } else { "" };
                warnings.push(format!("{} is hot, {celsius:.1} °C: let it cool before measuring{fan}", zone.name));
            }
        }
        warnings
    }

    fn mode_warning(&self) -> Option<String> {
        let mode = self.power_mode.as_ref()?;
        let maximum = mode.maximum();
        if mode.is_maximum() == Some(true) || maximum.is_some_and(|maximum| maximum.id == mode.id) {
            return None;
        }
        match maximum {
            Some(maximum) => Some(format!(
                "the power mode is {mode}, not {}: clocks, cores or both are limited; `sudo nvpmodel -m {}` lifts that",
                maximum.name, maximum.id
            )),
            // Where the modes' names are known and none is MAXN, whether there is a faster one shows in the clocks.
            None if !mode.available.is_empty() || mode.id == 0 => None,
            None => {
                Some(format!("the power mode is {mode}, which limits most boards; `sudo nvpmodel -m 0` lifts that"))
            }
        }
    }

    fn governor_warnings(&self) -> Vec<String> {
        let follows = |policy: &&CpuPolicy| {
            let fixed = policy.min_khz.is_some() && policy.min_khz == policy.max_khz;
            policy.governor.as_deref().is_some_and(|governor| governor != "performance") && !fixed
        };
        let mut warnings = Vec::new();
        let named = |policy: &CpuPolicy| format!("{} on {}", policy.governor.as_deref().unwrap_or(""), policy.name);
        let policies: Vec<String> = self.cpu.iter().filter(follows).map(named).collect();
        if !policies.is_empty() {
            warnings.push(format!(
                "CPU clocks follow the load (governor {}): `sudo jetson_clocks` holds them at their maximum",
                policies.join(", ")
            ));
        }
        if let Some(gpu) = &self.gpu
            && let Some(governor) = gpu.governor.as_deref().filter(|governor| *governor != "performance")
            && (gpu.min_hz.is_none() || gpu.min_hz != gpu.max_hz)
        {
            warnings.push(format!(
                "the GPU's clock follows the load (governor {governor}): `sudo jetson_clocks` holds it at its maximum"
            ));
        }
        warnings
    }

    fn limit_warnings(&self) -> Vec<String> {
        let cpus = self.cpu.iter().map(|p| (format!("CPU {}", p.name), p.max_khz, p.highest_khz));
        let gpu = self.gpu.iter().map(|g| (format!("GPU {}", g.name), khz(g.max_hz), khz(g.highest_hz)));
        cpus.chain(gpu).filter_map(|(name, max, highest)| self.limit_warning(&name, max?, highest?)).collect()
    }

    fn limit_warning(&self, clock: &str, max_khz: u64, highest_khz: u64) -> Option<String> {
        if max_khz >= highest_khz {
            return None;
        }
        let what = if !self.is_jetson() {
            format!("`sudo cpupower frequency-set --max {}MHz` lifts that", highest_khz / 1000)
        } else {
            let modes = self.power_mode.as_ref().map(|mode| mode.available.as_slice()).unwrap_or_default();
            let modes: Vec<String> = modes.iter().map(|mode| format!("{} {}", mode.id, mode.name)).collect();
            let list = if modes.is_empty() { String::new() } else { format!(" ({})", modes.join(", ")) };
            format!("another power mode{list} may lift that with `sudo nvpmodel -m ID`")
        };
        Some(format!("{clock} is limited to {} of {} MHz: {what}", max_khz / 1000, highest_khz / 1000))
    }
}

fn khz(hz: Option<u64>) -> Option<u64> {
    hz.map(|hz| hz / 1000)
}
