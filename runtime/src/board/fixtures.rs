//! File trees of Jetson boards as their documentation lays them out (see `docs/board.md`), for tests.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use tempfile::TempDir;

/// A path below the root and what the file there holds.
pub(crate) type Entry = (String, Vec<u8>);

/// A board.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Jetson Nano, JetPack 4.6.1.
    Nano,
    /// Jetson TX2, JetPack 4.6.1.
    Tx2,
    /// Jetson Xavier NX, JetPack 4.6.
    XavierNx,
    /// Jetson AGX Xavier, JetPack 4.5.1.
    AgxXavier,
    /// Jetson Orin Nano, JetPack 6.2.
    OrinNano,
    /// Jetson AGX Orin, JetPack 5.1.2.
    AgxOrin,
}

/// A fresh directory that holds the board's files.
pub(crate) fn tree(kind: Kind) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    entries(kind).iter().for_each(|(path, contents)| write(dir.path(), path, contents));
    dir
}

/// Writes one file below `root`, and the directories above it.
pub(crate) fn write(root: &Path, path: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// The board's files.
pub(crate) fn entries(kind: Kind) -> Vec<Entry> {
    match kind {
        Kind::Nano => nano(),
        Kind::Tx2 => tx2(),
        Kind::XavierNx => xavier_nx(),
        Kind::AgxXavier => agx_xavier(),
        Kind::OrinNano => orin_nano(),
        Kind::AgxOrin => agx_orin(),
    }
}

fn nano() -> Vec<Entry> {
    let mut tree = system("NVIDIA Jetson Nano Developer Kit", (32, "7.1"), "4.9.253-tegra", 4_059_424);
    tree.extend(modes("pmode:0000 fmode:quiet", &["MAXN", "5W"], 0));
    tree.extend(cores("0-3", "0-3"));
    tree.extend(policy(0, "schedutil", [102_000, 1_479_000, 102_000, 1_479_000, 1_479_000]));
    let frequencies = "76800000 153600000 921600000";
    tree.extend(gpu("sys/class/devfreq/57000000.gpu", "nvhost_podgov", [76, 76, 921], frequencies));
    let zones = [
        ("AO-therm", "41500"),
        ("CPU-therm", "34000"),
        ("GPU-therm", "31000"),
        ("PLL-therm", "31500"),
        ("PMIC-Die", "100000"),
        ("thermal-fan-est", "33000"),
    ];
    tree.extend(thermal(&zones));
    tree.extend(trips(1, &[("passive", 97_000), ("critical", 101_500)]));
    tree.extend(trips(4, &[("passive", 120_000)]));
    tree.extend(cooling(&[("pwm-fan", 3), ("cpu-balanced", 0), ("gpu-balanced", 0)]));
    let rails = [("POM_5V_IN", 5016, 508, 2548), ("POM_5V_GPU", 5016, 40, 200), ("POM_5V_CPU", 5016, 144, 722)];
    tree.extend(iio("6-0040", 0, &rails));
    tree
}

fn tx2() -> Vec<Entry> {
    let mut tree = system("quill", (32, "7.1"), "4.9.253-tegra", 8_048_000);
    tree.extend(modes("pmode:0003 fmode:cool", &["MAXN", "MAXQ", "MAXP_CORE_ALL", "MAXP_CORE_ARM"], 3));
    tree.extend(cores("0,3-5", "0-5"));
    tree.extend(policy(0, "schedutil", [1_113_600, 345_600, 345_600, 2_035_200, 2_035_200]));
    let frequencies = "114750000 1134750000 1300500000";
    tree.extend(gpu("sys/class/devfreq/17000000.gp10b", "nvhost_podgov", [114, 114, 1134], frequencies));
    tree.extend(thermal(&[("BCPU-therm", "38000"), ("GPU-therm", "36500"), ("PMIC-Die", "100000")]));
    tree.extend(iio("0-0040", 0, &[("VDD_SYS_GPU", 19_072, 8, 152), ("VDD_SYS_SOC", 19_072, 24, 458)]));
    let module = [("VDD_IN", 19_064, 120, 2288), ("VDD_SYS_CPU", 19_064, 16, 305), ("VDD_SYS_DDR", 19_064, 18, 343)];
    tree.extend(iio("0-0041", 1, &module));
    tree.extend(iio("0-0042", 2, &[("VDD_MUX", 19_000, 200, 3800), ("VDD_5V0_IO_SYS", 4952, 60, 297)]));
    tree
}

fn xavier_nx() -> Vec<Entry> {
    let mut tree = system("NVIDIA Jetson Xavier NX Developer Kit", (32, "6.1"), "4.9.253-tegra", 7_961_000);
    let names = ["MODE_15W_2CORE", "MODE_15W_4CORE", "MODE_15W_6CORE", "MODE_10W_2CORE", "MODE_10W_4CORE"];
    tree.extend(modes("pmode:0002", &names, 2));
    tree.extend(cores("0-5", "0-5"));
    tree.extend(policy(0, "schedutil", [1_190_400, 1_190_400, 1_190_400, 1_420_800, 1_907_200]));
    let frequencies = "114750000 1109250000";
    tree.extend(gpu("sys/class/devfreq/17000000.gv11b", "nvhost_podgov", [114, 114, 1109], frequencies));
    tree.extend(thermal(&[("CPU-therm", "47500"), ("GPU-therm", "46000"), ("PMIC-Die", "100000")]));
    tree.extend(iio(
        "7-0040",
        0,
        &[("VDD_IN", 4984, 800, 3987), ("VDD_CPU_GPU_CV", 4984, 96, 478), ("VDD_SOC", 4984, 200, 996)],
    ));
    tree
}

fn agx_xavier() -> Vec<Entry> {
    let mut tree = system("Jetson-AGX", (32, "5.1"), "4.9.201-tegra", 32_692_000);
    tree.extend(modes("pmode:0000", &["MAXN", "MODE_10W", "MODE_15W"], 2));
    tree.extend(cores("0-7", "0-7"));
    for first in [0, 2, 4, 6] {
        tree.extend(policy(first, "schedutil", [2_265_600; 5]));
    }
    let frequencies = "114750000 1377000000";
    tree.extend(gpu(
        "sys/devices/platform/17000000.gpu/devfreq/17000000.gv11b",
        "nvhost_podgov",
        [1377; 3],
        frequencies,
    ));
    tree.extend(thermal(&[("CPU-therm", "35000"), ("Tboard_tegra", "30000"), ("Tdiode_tegra", "-256000")]));
    tree.extend(iio("1-0040", 0, &[("GPU", 19_000, 16, 304), ("CPU", 19_000, 40, 760), ("SOC", 19_000, 80, 1520)]));
    tree.extend(iio("1-0041", 1, &[("CV", 19_000, 0, 0), ("VDDRQ", 19_000, 20, 380), ("SYS5V", 5000, 400, 2000)]));
    tree
}

fn orin_nano() -> Vec<Entry> {
    let mut tree = system(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        (36, "4.3"),
        "5.15.148-tegra",
        7_802_956,
    );
    tree.extend(modes("pmode:0000", &["15W", "25W", "MAXN_SUPER", "7W"], 1));
    tree.extend(cores("0-5", "0-5"));
    tree.extend(policy(0, "schedutil", [729_600, 729_600, 729_600, 1_510_400, 1_728_000]));
    tree.extend(policy(4, "schedutil", [729_600, 729_600, 729_600, 1_510_400, 1_728_000]));
    let frequencies = "306000000 612000000 1020000000";
    tree.extend(gpu("sys/class/devfreq/17000000.gpu", "nvhost_podgov", [306, 306, 612], frequencies));
    tree.extend(thermal(&[("cpu-thermal", "51187"), ("gpu-thermal", "50218"), ("cv0-thermal", "-256000")]));
    tree.extend(trips(0, &[("active", 45_000), ("passive", 99_000), ("hot", 103_000), ("critical", 104_500)]));
    tree.extend(cooling(&[("pwm-fan", 1), ("cpu-throttle-alert", 0), ("gpu-throttle-alert", 0), ("17000000.gpu", 0)]));
    tree.extend(over_current([0, 0, 37], 1));
    let rails = [(1, "VDD_IN", 5040, 960), (2, "VDD_CPU_GPU_CV", 4976, 120), (3, "VDD_SOC", 4976, 304)];
    tree.extend(hwmon("1-0040", "hwmon3", &rails));
    tree.push((
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in7_label".into(),
        b"sum of shunt voltages\n".to_vec(),
    ));
    tree
}

fn agx_orin() -> Vec<Entry> {
    let mut tree = system("NVIDIA Jetson AGX Orin Developer Kit", (35, "4.1"), "5.10.120-tegra", 31_288_000);
    tree.extend(modes("pmode:0000", &["MAXN", "MODE_15W", "MODE_30W", "MODE_50W"], 2));
    tree.extend(cores("0-11", "0-11"));
    for first in [0, 4, 8] {
        tree.extend(policy(first, "performance", [2_201_600; 5]));
    }
    let frequencies = "306000000 1300500000";
    tree.extend(gpu("sys/class/devfreq/17000000.ga10b", "performance", [1300; 3], frequencies));
    tree.extend(thermal(&[("CPU-therm", "48218"), ("GPU-therm", "44000"), ("tj-therm", "48468")]));
    let core = [(1, "VDD_GPU_SOC", 19_000, 200), (2, "VDD_CPU_CV", 19_000, 100), (3, "VIN_SYS_5V0", 5000, 900)];
    tree.extend(hwmon("1-0040", "hwmon3", &core));
    tree.extend(hwmon("1-0041", "hwmon4", &[(1, "NC", 0, 0), (2, "VDDQ_VDD2_1V8AO", 5000, 100)]));
    tree
}

fn text(path: impl Into<String>, contents: impl std::fmt::Display) -> Entry {
    (path.into(), format!("{contents}\n").into_bytes())
}

fn system(model: &str, (major, revision): (u32, &str), kernel: &str, memory_kb: u64) -> Vec<Entry> {
    let release = format!("# R{major} (release), REVISION: {revision}, GCID: 29818004, BOARD: t186ref, EABI: aarch64");
    vec![
        ("proc/device-tree/model".into(), format!("{model}\0").into_bytes()),
        text("etc/nv_tegra_release", release),
        text("proc/sys/kernel/osrelease", kernel),
        text("proc/meminfo", format_args!("MemTotal:        {memory_kb} kB\nMemFree:         1000 kB")),
    ]
}

fn modes(status: &str, names: &[&str], default: u32) -> Vec<Entry> {
    let mut configuration = "# FORMAT:\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n".to_owned();
    for (id, name) in names.iter().enumerate() {
        configuration += &format!("\n< POWER_MODEL ID={id} NAME={name} >\nCPU_ONLINE CORE_0 1\n");
    }
    configuration += &format!("\n< PM_CONFIG DEFAULT={default} >");
    vec![text("etc/nvpmodel.conf", configuration), text("var/lib/nvpmodel/status", status)]
}

fn cores(online: &str, present: &str) -> Vec<Entry> {
    let file = |name: &str| format!("sys/devices/system/cpu/{name}");
    vec![text(file("online"), online), text(file("present"), present)]
}

/// Frequencies in kHz: now, lowest of the hardware, lowest and highest allowed, highest of the hardware.
fn policy(number: u32, governor: &str, khz: [u64; 5]) -> Vec<Entry> {
    let file = |name: &str| format!("sys/devices/system/cpu/cpufreq/policy{number}/{name}");
    let names = ["scaling_cur_freq", "cpuinfo_min_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq"];
    let mut tree = vec![text(file("scaling_governor"), governor)];
    tree.extend(names.iter().zip(khz).map(|(name, khz)| text(file(name), khz)));
    tree
}

/// Frequencies in MHz: now, lowest and highest allowed; those of the hardware in Hz.
fn gpu(directory: &str, governor: &str, mhz: [u64; 3], available: &str) -> Vec<Entry> {
    let exact = |mhz: u64| {
        let close = available.split(' ').find(|hz| hz.parse::<u64>().unwrap() / 1_000_000 == mhz);
        close.map_or((mhz * 1_000_000).to_string(), str::to_owned)
    };
    let file = |name: &str| format!("{directory}/{name}");
    let mut tree = vec![text(file("governor"), governor), text(file("available_frequencies"), available)];
    let names = ["cur_freq", "min_freq", "max_freq"];
    tree.extend(names.iter().zip(mhz).map(|(name, mhz)| text(file(name), exact(mhz))));
    tree
}

fn thermal(zones: &[(&str, &str)]) -> Vec<Entry> {
    let file = |zone: usize, name: &str| format!("sys/class/thermal/thermal_zone{zone}/{name}");
    let zone = |(index, (name, temp)): (usize, &(&str, &str))| {
        [text(file(index, "type"), name), text(file(index, "temp"), temp)]
    };
    zones.iter().enumerate().flat_map(zone).collect()
}

fn trips(zone: usize, points: &[(&str, i64)]) -> Vec<Entry> {
    let file = |trip: usize, name: &str| format!("sys/class/thermal/thermal_zone{zone}/trip_point_{trip}_{name}");
    let point = |(index, (kind, temp)): (usize, &(&str, i64))| {
        [text(file(index, "type"), kind), text(file(index, "temp"), temp)]
    };
    points.iter().enumerate().flat_map(point).collect()
}

fn cooling(devices: &[(&str, i64)]) -> Vec<Entry> {
    let file = |device: usize, name: &str| format!("sys/class/thermal/cooling_device{device}/{name}");
    let device = |(index, (kind, state)): (usize, &(&str, i64))| {
        [text(file(index, "type"), kind), text(file(index, "cur_state"), state)]
    };
    devices.iter().enumerate().flat_map(device).collect()
}

fn over_current(events: [u64; 3], throttling: u8) -> Vec<Entry> {
    let file = |number: usize, name: &str| format!("sys/class/hwmon/hwmon2/oc{number}_{name}");
    let counter = |(index, count): (usize, u64)| {
        [text(file(index + 1, "event_cnt"), count), text(file(index + 1, "throt_en"), throttling)]
    };
    events.into_iter().enumerate().flat_map(counter).collect()
}

/// Rails of JetPack 4: name, mV, mA, mW.
fn iio(address: &str, device: usize, rails: &[(&str, i64, i64, i64)]) -> Vec<Entry> {
    let file = |name: String| format!("sys/bus/i2c/drivers/ina3221x/{address}/iio:device{device}/{name}");
    let rail = |(index, (name, mv, ma, mw)): (usize, &(&str, i64, i64, i64))| {
        [
            text(file(format!("rail_name_{index}")), name),
            text(file(format!("in_voltage{index}_input")), mv),
            text(file(format!("in_current{index}_input")), ma),
            text(file(format!("in_power{index}_input")), mw),
        ]
    };
    let mut tree: Vec<Entry> = rails.iter().enumerate().flat_map(rail).collect();
    tree.push(text("sys/bus/i2c/drivers/ina3221x/uevent", ""));
    tree
}

/// Rails of the kernel's driver: channel, name, mV, mA.
fn hwmon(address: &str, monitor: &str, rails: &[(u8, &str, i64, i64)]) -> Vec<Entry> {
    let file = |name: String| format!("sys/bus/i2c/drivers/ina3221/{address}/hwmon/{monitor}/{name}");
    let rail = |(channel, name, mv, ma): &(u8, &str, i64, i64)| {
        [
            text(file(format!("in{channel}_label")), name),
            text(file(format!("in{channel}_input")), mv),
            text(file(format!("curr{channel}_input")), ma),
        ]
    };
    rails.iter().flat_map(rail).collect()
}
