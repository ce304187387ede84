//! What counts as throttling, and what does not.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::board::{
    fixtures::{self, Kind},
    throttle::Snapshot,
};

/// Reasons given for a board where `change` happens between two snapshots.
fn reasons(kind: Kind, before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
    let dir = fixtures::tree(kind);
    let set = |files: &[(&str, &str)]| files.iter().for_each(|(path, text)| fixtures::write(dir.path(), path, text));
    set(before);
    let earlier = Snapshot::take(dir.path());
    set(after);
    Snapshot::take(dir.path()).throttled_since(&earlier)
}

/// That there is one reason, and what it says.
fn one(reasons: &[String], words: &[&str]) {
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(words.iter().all(|word| reasons[0].contains(word)), "{words:?}: {reasons:?}");
}

const POLICY: &str = "sys/devices/system/cpu/cpufreq/policy0";
const THERMAL: &str = "sys/class/thermal";

#[test]
fn a_governor_that_scales_and_a_fan_that_turns_are_no_throttling() {
    let changes = [
        (&*format!("{POLICY}/scaling_cur_freq"), "204000"),
        ("sys/class/devfreq/57000000.gpu/cur_freq", "76800000"),
        (&*format!("{THERMAL}/cooling_device0/cur_state"), "9"),
        (&*format!("{THERMAL}/thermal_zone1/temp"), "70000"),
    ];
    assert_eq!(reasons(Kind::Nano, &[], &changes), Vec::<String>::new());
    for kind in [Kind::Nano, Kind::Tx2, Kind::XavierNx, Kind::AgxXavier, Kind::OrinNano, Kind::AgxOrin] {
        assert_eq!(reasons(kind, &[], &[]), Vec::<String>::new(), "{kind:?}");
    }
}

#[test]
fn a_limit_that_was_low_all_the_time_is_no_throttling() {
    // The Orin Nano's 15 W mode lowers limits, and some boards hold a mode's limit in the state of a cooling device.
    let steady = [(&*format!("{THERMAL}/cooling_device3/cur_state"), "18")];
    assert_eq!(reasons(Kind::OrinNano, &steady, &[]), Vec::<String>::new());
}

#[test]
fn limits_that_change_are_throttling() {
    let lowered = [(&*format!("{POLICY}/scaling_max_freq"), "1224000")];
    one(&reasons(Kind::Nano, &[], &lowered), &["CPU policy0", "1479", "1224 MHz"]);
    let risen = reasons(Kind::Nano, &lowered, &[(&*format!("{POLICY}/scaling_max_freq"), "1479000")]);
    one(&risen, &["from 1224 to 1479 MHz"]);
    one(
        &reasons(Kind::Nano, &[], &[("sys/class/devfreq/57000000.gpu/max_freq", "640000000")]),
        &["GPU 57000000.gpu", "640"],
    );
    one(&reasons(Kind::Nano, &[], &[("sys/devices/system/cpu/online", "0-1")]), &["cores", "4 to 2"]);
}

#[test]
fn cooling_that_begins_and_alerts_are_throttling() {
    one(
        &reasons(Kind::Nano, &[], &[(&format!("{THERMAL}/cooling_device2/cur_state"), "2")]),
        &["gpu-balanced", "0 to 2"],
    );
    let alert = format!("{THERMAL}/cooling_device2/cur_state");
    one(&reasons(Kind::OrinNano, &[], &[(&alert, "1")]), &["gpu-throttle-alert"]);
    one(&reasons(Kind::OrinNano, &[(&alert, "1")], &[]), &["gpu-throttle-alert", "slowing down"]);
    one(&reasons(Kind::OrinNano, &[(&alert, "1")], &[(&alert, "0")]), &["1 at the start, 0 at the end"]);
}

#[test]
fn a_processor_at_its_trip_point_is_throttling() {
    let temp = format!("{THERMAL}/thermal_zone1/temp");
    one(&reasons(Kind::Nano, &[], &[(&temp, "97000")]), &["CPU-therm", "97.0 °C at the end", "passive"]);
    // An active trip point turns a fan on, and an unset one reads 0.
    assert_eq!(
        reasons(Kind::OrinNano, &[], &[(&format!("{THERMAL}/thermal_zone0/temp"), "60000")]),
        Vec::<String>::new()
    );
    let unset = [(&*format!("{THERMAL}/thermal_zone1/trip_point_0_temp"), "0")];
    assert_eq!(reasons(Kind::Nano, &unset, &[]), Vec::<String>::new());
    // With it, steady cooling counts.
    let hot = [(&*temp, "98000"), (&*format!("{THERMAL}/cooling_device1/cur_state"), "1")];
    let found = reasons(Kind::Nano, &hot, &[]);
    assert!(found.iter().any(|reason| reason.contains("cpu-balanced")), "{found:?}");
}

#[test]
fn counters_that_rise_are_throttling() {
    let monitor = "sys/class/hwmon/hwmon2";
    one(
        &reasons(Kind::OrinNano, &[], &[(&format!("{monitor}/oc3_event_cnt"), "42")]),
        &["instantaneous over-current", "5 new"],
    );
    // An event that does not throttle is none.
    let off = [(&*format!("{monitor}/oc3_throt_en"), "0")];
    assert_eq!(reasons(Kind::OrinNano, &off, &[(&format!("{monitor}/oc3_event_cnt"), "42")]), Vec::<String>::new());
}

#[test]
fn x86_counts_cores_each_and_packages_once() {
    let dir = tempfile::tempdir().unwrap();
    let set = |core: u64, package: u64, root: &Path| {
        for cpu in ["cpu0", "cpu1"] {
            let file = |name: &str| format!("sys/devices/system/cpu/{cpu}/thermal_throttle/{name}");
            fixtures::write(root, &file("core_throttle_count"), core.to_string());
            fixtures::write(root, &file("package_throttle_count"), package.to_string());
            fixtures::write(root, &file("package_throttle_total_time_ms"), (package * 7).to_string());
        }
    };
    set(3, 5, dir.path());
    let before = Snapshot::take(dir.path());
    set(3, 5, dir.path());
    assert_eq!(Snapshot::take(dir.path()).throttled_since(&before), Vec::<String>::new());
    set(4, 9, dir.path());
    let found = Snapshot::take(dir.path()).throttled_since(&before);
    assert_eq!(found, ["core throttle events of the CPU: 2 new", "package throttle events of the CPU: 4 new"]);
    let bytes = postcard::to_allocvec(&before).unwrap();
    assert_eq!(postcard::from_bytes::<Snapshot>(&bytes).unwrap(), before);
}
