//! What is read from the tree of each board.
#![allow(clippy::unwrap_used)]

use crate::board::{
    Board, Cores,
    fixtures::{self, Kind},
    power::{PowerError, Rails},
};

/// What a board is expected to say.
struct Expected {
    kind: Kind,
    model: &'static str,
    software: (&'static str, &'static str),
    mode: &'static str,
    cores: (u32, u32),
    gpu: (&'static str, u64, u64),
    total: (&'static [&'static str], f64),
    warmest: (&'static str, f64),
}

const EXPECTED: [Expected; 6] = [
    Expected {
        kind: Kind::Nano,
        model: "NVIDIA Jetson Nano Developer Kit",
        software: ("R32.7.1", "4.6.1"),
        mode: "MAXN (0)",
        cores: (4, 4),
        gpu: ("57000000.gpu", 921_600_000, 921_600_000),
        total: (&["POM_5V_IN"], 2548.0),
        warmest: ("AO-therm", 41.5),
    },
    Expected {
        kind: Kind::Tx2,
        model: "quill",
        software: ("R32.7.1", "4.6.1"),
        mode: "MAXP_CORE_ARM (3)",
        cores: (4, 6),
        gpu: ("17000000.gp10b", 1_134_750_000, 1_300_500_000),
        total: (&["VDD_IN"], 2288.0),
        warmest: ("BCPU-therm", 38.0),
    },
    Expected {
        kind: Kind::XavierNx,
        model: "NVIDIA Jetson Xavier NX Developer Kit",
        software: ("R32.6.1", "4.6"),
        mode: "MODE_15W_6CORE (2)",
        cores: (6, 6),
        gpu: ("17000000.gv11b", 1_109_250_000, 1_109_250_000),
        total: (&["VDD_IN"], 3987.0),
        warmest: ("CPU-therm", 47.5),
    },
    Expected {
        kind: Kind::AgxXavier,
        model: "Jetson-AGX",
        software: ("R32.5.1", "4.5.1"),
        mode: "MAXN (0)",
        cores: (8, 8),
        gpu: ("17000000.gv11b", 1_377_000_000, 1_377_000_000),
        total: (&["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], 304.0 + 760.0 + 1520.0 + 380.0 + 2000.0),
        warmest: ("CPU-therm", 35.0),
    },
    Expected {
        kind: Kind::OrinNano,
        model: "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        software: ("R36.4.3", "6.2"),
        mode: "15W (0)",
        cores: (6, 6),
        gpu: ("17000000.gpu", 612_000_000, 1_020_000_000),
        total: (&["VDD_IN"], 5.040 * 960.0),
        warmest: ("cpu-thermal", 51.187),
    },
    Expected {
        kind: Kind::AgxOrin,
        model: "NVIDIA Jetson AGX Orin Developer Kit",
        software: ("R35.4.1", "5.1.2"),
        mode: "MAXN (0)",
        cores: (12, 12),
        gpu: ("17000000.ga10b", 1_300_500_000, 1_300_500_000),
        // Without the memory's rail, which is part of the 5 V rail.
        total: (&["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], 3800.0 + 1900.0 + 4500.0),
        warmest: ("tj-therm", 48.468),
    },
];

/// Rounding of a product or a sum of a few f64.
const ROUNDING: f64 = 1e-9;

#[test]
fn every_board_says_what_it_is_and_how_it_is_set() {
    for Expected { kind, model, software, mode, cores, gpu, total, warmest } in EXPECTED {
        let dir = fixtures::tree(kind);
        let board = Board::read(dir.path());
        assert!(board.is_jetson(), "{kind:?}");
        assert_eq!(board.model.as_deref(), Some(model));
        assert_eq!((board.l4t.as_deref(), board.jetpack.as_deref()), (Some(software.0), Some(software.1)), "{kind:?}");
        assert!(board.kernel.as_deref().unwrap().ends_with("-tegra"));
        assert_eq!(board.power_mode.as_ref().unwrap().to_string(), mode, "{kind:?}");
        assert_eq!(board.cores, Some(Cores { online: cores.0, present: Some(cores.1) }), "{kind:?}");
        let found = board.gpu.as_ref().unwrap();
        assert_eq!((found.name.as_str(), found.max_hz, found.highest_hz), (gpu.0, Some(gpu.1), Some(gpu.2)));
        let rails = Rails::find(dir.path()).unwrap();
        assert_eq!(rails.total_names(), total.0, "{kind:?}");
        assert!((rails.total_milliwatts().unwrap() - total.1).abs() < ROUNDING, "{kind:?}");
        assert!((board.total_milliwatts.unwrap() - total.1).abs() < ROUNDING, "{kind:?}");
        assert_eq!(board.rails, rails.read().unwrap());
        let warm = board.warmest().unwrap();
        assert_eq!((warm.name.as_str(), warm.celsius), (warmest.0, Some(warmest.1)), "{kind:?}");
        let clocks = board.clocks().unwrap();
        assert!(clocks.ends_with(&format!(" to {} MHz", gpu.1 / 1_000_000)) && clocks.contains(gpu.0), "{clocks}");
        assert_eq!(clocks.split(", ").count(), board.cpu.len() + 1, "{clocks}");
        assert!(board.cpu.iter().all(|policy| policy.governor.is_some() && policy.current_khz.is_some()), "{kind:?}");
    }
}

#[test]
fn parts_and_rails_that_are_not_connected_are_no_total() {
    let board = Board::read(fixtures::tree(Kind::AgxOrin).path());
    let rails: Vec<(&str, bool)> = board.rails.iter().map(|rail| (rail.name.as_str(), rail.in_total)).collect();
    let expected = [("VDD_GPU_SOC", true), ("VDD_CPU_CV", true), ("VIN_SYS_5V0", true), ("VDDQ_VDD2_1V8AO", false)];
    assert_eq!(rails, expected);
    // The channel that holds the sum of shunt voltages is no rail.
    assert_eq!(Board::read(fixtures::tree(Kind::OrinNano).path()).rails.len(), 3);
    // The carrier board's rails of a TX2 come beside the module's.
    assert_eq!(Board::read(fixtures::tree(Kind::Tx2).path()).rails.len(), 7);
}

#[test]
fn power_is_voltage_times_current_where_no_file_holds_it() {
    let dir = fixtures::tree(Kind::Nano);
    let monitor = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
    std::fs::remove_file(dir.path().join(monitor).join("in_power0_input")).unwrap();
    let total = Rails::find(dir.path()).unwrap().total_milliwatts().unwrap();
    assert!((total - 5.016 * 508.0).abs() < ROUNDING, "{total}");
}

#[test]
fn a_total_is_not_made_up_of_unknown_or_missing_rails() {
    let dir = fixtures::tree(Kind::AgxXavier);
    let monitor = dir.path().join("sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1");
    std::fs::remove_file(monitor.join("rail_name_1")).unwrap();
    let error = Rails::find(dir.path()).unwrap().total_milliwatts().unwrap_err();
    assert!(matches!(error, PowerError::NoTotal { .. }) && error.to_string().contains("SYS5V"), "{error}");
    let board = Board::read(dir.path());
    assert_eq!((board.rails.len(), board.total_milliwatts), (5, None));
}

#[test]
fn a_disabled_channel_is_no_rail() {
    let dir = fixtures::tree(Kind::AgxOrin);
    fixtures::write(dir.path(), "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon4/in2_enable", "0\n");
    assert_eq!(Board::read(dir.path()).rails.len(), 3);
}

#[test]
fn temperatures_that_cannot_be_are_left_out_and_told() {
    let nano = Board::read(fixtures::tree(Kind::Nano).path());
    assert_eq!(nano.thermal.len(), 6);
    let pmic = nano.thermal.iter().find(|zone| zone.name == "PMIC-Die").unwrap();
    assert_eq!(pmic.celsius, None);
    assert_eq!(nano.notes.len(), 1, "{:?}", nano.notes);
    assert!(nano.notes[0].contains("PMIC-Die") && nano.notes[0].contains("100"), "{:?}", nano.notes);
    let xavier = Board::read(fixtures::tree(Kind::AgxXavier).path());
    assert!(
        xavier.notes.iter().any(|note| note.contains("Tdiode_tegra") && note.contains("-256")),
        "{:?}",
        xavier.notes
    );
    // A cold board is a board.
    let dir = fixtures::tree(Kind::Nano);
    fixtures::write(dir.path(), "sys/class/thermal/thermal_zone1/temp", "-12500\n");
    assert_eq!(Board::read(dir.path()).thermal[1].celsius, Some(-12.5));
}

#[test]
fn a_pc_has_a_model_too() {
    let dir = tempfile::tempdir().unwrap();
    let cpuinfo = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz\n";
    fixtures::write(dir.path(), "proc/cpuinfo", cpuinfo);
    let board = Board::read(dir.path());
    assert_eq!(board.model.as_deref(), Some("Some CPU @ 2.00GHz"));
    fixtures::write(dir.path(), "sys/class/dmi/id/product_name", "Some PC\n");
    let board = Board::read(dir.path());
    assert_eq!(board.model.as_deref(), Some("Some PC"));
    assert!(!board.is_jetson() && board.rails.is_empty() && board.notes.is_empty(), "{board:?}");
}

#[test]
fn policies_of_old_kernels_are_below_their_cores() {
    let dir = tempfile::tempdir().unwrap();
    for core in [0, 1, 10] {
        fixtures::write(
            dir.path(),
            &format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"),
            "ondemand\n",
        );
    }
    fixtures::write(dir.path(), "sys/devices/system/cpu/cpuidle/current_driver", "none\n");
    let names: Vec<String> = Board::read(dir.path()).cpu.into_iter().map(|policy| policy.name).collect();
    assert_eq!(names, ["cpu0", "cpu1", "cpu10"]);
}

#[test]
fn without_a_status_the_default_mode_is_taken_and_told() {
    let dir = fixtures::tree(Kind::OrinNano);
    std::fs::remove_file(dir.path().join("var/lib/nvpmodel/status")).unwrap();
    let board = Board::read(dir.path());
    assert_eq!(board.power_mode.as_ref().unwrap().to_string(), "25W (1)");
    assert!(board.notes.iter().any(|note| note.contains("default")), "{:?}", board.notes);
}

#[test]
fn a_board_survives_postcard_and_json() {
    for Expected { kind, .. } in EXPECTED {
        let board = Board::read(fixtures::tree(kind).path());
        let bytes = postcard::to_allocvec(&board).unwrap();
        assert_eq!(postcard::from_bytes::<Board>(&bytes).unwrap(), board);
        let json = serde_json::to_string(&board).unwrap();
        assert_eq!(serde_json::from_str::<Board>(&json).unwrap(), board);
    }
}

#[test]
fn this_machine_can_be_read_and_twice_alike_but_for_what_changes() {
    let still = |board: Board| (board.model, board.l4t, board.kernel, board.cores, board.memory_bytes);
    let root = std::path::Path::new("/");
    let first = Board::read(root);
    assert!(first.kernel.is_some() && first.memory_bytes.is_some(), "{first:?}");
    assert_eq!(still(Board::read(root)), still(first));
}
