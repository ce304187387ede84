//! Whether the hardware was slowed down between two moments.
//!
//! Taken before and after a measurement, two snapshots tell whether heat, current or somebody's hand changed what the
//! clocks may do. A governor that scales frequencies with the load is no throttling: frequencies of the moment are not
//! looked at, only their limits. Looked at are
//!
//! * limits: `scaling_max_freq` of each cpufreq policy (which cooling lowers), `max_freq` of the GPU, cores online;
//! * cooling devices that slow a processor, alerts of a Jetson's hardware among them;
//! * counters: `thermal_throttle/*_count` of x86 cores, and over-current events (`oc*_event_cnt`) of Orin boards, where
//!   these throttle (`oc*_throt_en`). NVIDIA Jetson Linux Developer Guide R36, "Jetson Orin Nano Series, Jetson Orin NX
//!   Series and Jetson AGX Orin Series", "OC event": 1 is under-voltage, 2 average and 3 instantaneous over-current;
//! * zones at a `hot` trip point, or a processor's at a `passive` one.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    clock,
    files::Files,
    thermal::{self, Cooling, Reached},
};

/// What tells throttling at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Highest frequency allowed to each clock, in kHz.
    limits: BTreeMap<String, u64>,
    cores: Option<u32>,
    cooling: Vec<Cooling>,
    /// Events so far, by what counts them.
    counters: BTreeMap<String, u64>,
    reached: Vec<Reached>,
}

impl Snapshot {
    /// The state below `root` (`/` on a board) now. What cannot be read tells nothing.
    pub fn take(root: &Path) -> Self {
        let files = Files::new(root);
        let cpus = clock::policies(&files).into_iter().filter_map(|p| Some((format!("CPU {}", p.name), p.max_khz?)));
        let gpu = clock::gpu(&files).and_then(|gpu| Some((format!("GPU {}", gpu.name), gpu.max_hz? / 1000)));
        let mut counters = cpu_counters(&files);
        counters.extend(current_events(&files));
        Self {
            limits: cpus.chain(gpu).collect(),
            cores: clock::cores(&files).map(|cores| cores.online),
            cooling: thermal::cooling(&files),
            counters,
            reached: thermal::reached(&files),
        }
    }

    /// Why what was measured between `earlier` and this moment was throttled, one sentence a reason; empty if nothing
    /// tells so.
    pub fn throttled_since(&self, earlier: &Self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (clock, &now) in &self.limits {
            match earlier.limits.get(clock) {
                Some(&before) if before != now => reasons.push(format!(
                    "the highest frequency allowed to {clock} went from {} to {} MHz",
                    before / 1000,
                    now / 1000
                )),
                _ => {}
            }
        }
        if let (Some(before), Some(now)) = (earlier.cores, self.cores)
            && before != now
        {
            reasons.push(format!("the CPU cores online went from {before} to {now}"));
        }
        reasons.extend(self.cooling_reasons(earlier));
        for (counter, &now) in &self.counters {
            let before = earlier.counters.get(counter).copied().unwrap_or(now);
            if now > before {
                reasons.push(format!("{counter}: {} new", now - before));
            }
        }
        let hot = |moment: &str, reached: &Reached| {
            let Reached { zone, celsius, trip_celsius, kind } = reached;
            format!("{zone} was at {celsius:.1} °C {moment}, its {kind} trip point is {trip_celsius:.1} °C")
        };
        reasons.extend(earlier.reached.iter().map(|reached| hot("at the start", reached)));
        reasons.extend(self.reached.iter().map(|reached| hot("at the end", reached)));
        reasons
    }

    /// Cooling devices that cool more than before; alerts at any moment; and any that already cooled while a trip point
    /// was reached (without one, a state other than 0 may be the limit of a power mode).
    fn cooling_reasons(&self, earlier: &Self) -> Vec<String> {
        let hot = !self.reached.is_empty() || !earlier.reached.is_empty();
        let before = |device: &Cooling| {
            let same = |d: &&Cooling| d.name == device.name && d.kind == device.kind;
            earlier.cooling.iter().find(same).map(|d| d.state)
        };
        let reason = |device: &Cooling| {
            let before = before(device).unwrap_or(device.state);
            let (kind, now) = (&device.kind, device.state);
            if now > before && now > 0 {
                Some(format!("cooling by {kind} went from {before} to {now}"))
            } else if before.max(now) > 0 && (device.is_alert() || hot) {
                Some(format!("{kind} cooled by slowing down ({before} at the start, {now} at the end)"))
            } else {
                None
            }
        };
        self.cooling.iter().filter_map(reason).collect()
    }
}

/// Thermal throttling of x86 cores since boot. All cores of a package count the package's events: the most of them is
/// taken; those of cores are summed.
fn cpu_counters(files: &Files<'_>) -> BTreeMap<String, u64> {
    let cpu = "sys/devices/system/cpu";
    let mut counters = BTreeMap::new();
    for core in files.names(cpu, "cpu") {
        if !core.bytes().skip(3).all(|b| b.is_ascii_digit()) || core.len() == 3 {
            continue;
        }
        let directory = format!("{cpu}/{core}/thermal_throttle");
        for file in files.names(&directory, "") {
            let Some(name) = file.strip_suffix("_count") else { continue };
            let Some(count) = files.count(&format!("{directory}/{file}")) else { continue };
            let events = counters.entry(format!("{} events of the CPU", name.replace('_', " "))).or_insert(0u64);
            *events = if name.starts_with("package") { count.max(*events) } else { events.saturating_add(count) };
        }
    }
    counters
}

/// Over-current events since boot of monitors that throttle.
fn current_events(files: &Files<'_>) -> BTreeMap<String, u64> {
    let class = "sys/class/hwmon";
    let mut counters = BTreeMap::new();
    for monitor in files.names(class, "hwmon") {
        for file in files.names(&format!("{class}/{monitor}"), "oc") {
            let Some(name) = file.strip_suffix("_event_cnt") else { continue };
            if files.number(&format!("{class}/{monitor}/{name}_throt_en")) == Some(0) {
                continue;
            }
            let Some(count) = files.count(&format!("{class}/{monitor}/{file}")) else { continue };
            let what = match name {
                "oc1" => "under-voltage",
                "oc2" => "average over-current",
                "oc3" => "instantaneous over-current",
                _ => "over-current",
            };
            counters.insert(format!("{what} events ({monitor}/{name})"), count);
        }
    }
    counters
}
