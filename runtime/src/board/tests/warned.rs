//! Warnings of each board.
#![allow(clippy::unwrap_used)]

use crate::board::{
    Board,
    fixtures::{self, Kind},
};

/// Warnings of a board with some of its files changed.
fn warnings(kind: Kind, changes: &[(&str, &str)]) -> Vec<String> {
    let dir = fixtures::tree(kind);
    changes.iter().for_each(|(path, text)| fixtures::write(dir.path(), path, text));
    Board::read(dir.path()).warnings()
}

/// That warnings are as many as `words`, and each holds its words.
fn hold(warnings: &[String], words: &[&[&str]]) {
    assert_eq!(warnings.len(), words.len(), "{warnings:#?}");
    for (warning, words) in warnings.iter().zip(words) {
        assert!(words.iter().all(|word| warning.contains(word)), "{words:?}: {warning}");
    }
}

#[test]
fn a_board_that_is_set_well_has_none() {
    assert_eq!(warnings(Kind::AgxOrin, &[]), Vec::<String>::new());
    // Clocks that `jetson_clocks` has fixed keep their governor.
    assert_eq!(warnings(Kind::AgxXavier, &[]), Vec::<String>::new());
    assert_eq!(Board::default().warnings(), Vec::<String>::new());
}

#[test]
fn clocks_that_follow_the_load_are_warned_of_with_the_command() {
    let words: [&[&str]; 2] =
        [&["CPU", "schedutil on policy0", "`sudo jetson_clocks`"], &["GPU", "nvhost_podgov", "`sudo jetson_clocks`"]];
    hold(&warnings(Kind::Nano, &[]), &words);
}

#[test]
fn a_lesser_mode_is_warned_of_with_the_number_of_the_greatest() {
    let warned = warnings(Kind::Tx2, &[]);
    assert!(
        warned[0].contains("MAXP_CORE_ARM (3), not MAXN") && warned[0].contains("`sudo nvpmodel -m 0`"),
        "{warned:?}"
    );
    let warned = warnings(Kind::OrinNano, &[]);
    assert!(warned[0].contains("15W (0), not MAXN_SUPER") && warned[0].contains("`sudo nvpmodel -m 2`"), "{warned:?}");
    // A number without names.
    let warned =
        warnings(Kind::AgxOrin, &[("etc/nvpmodel.conf", "# empty\n"), ("var/lib/nvpmodel/status", "pmode:0002")]);
    hold(&warned, &[&["power mode is 2", "`sudo nvpmodel -m 0`"]]);
}

#[test]
fn limits_are_warned_of_where_the_mode_has_no_name_for_them() {
    let warned = warnings(Kind::XavierNx, &[]);
    let limit = warned.last().unwrap();
    assert!(limit.contains("CPU policy0 is limited to 1420 of 1907 MHz"), "{warned:?}");
    assert!(limit.contains("2 MODE_15W_6CORE") && limit.contains("`sudo nvpmodel -m ID`"), "{warned:?}");
}

#[test]
fn heat_and_lowered_clocks_are_warned_of_on_any_machine() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "sys/devices/system/cpu/cpufreq/policy0";
    for (file, text) in
        [("scaling_governor", "powersave"), ("scaling_max_freq", "2000000"), ("cpuinfo_max_freq", "3500000")]
    {
        fixtures::write(dir.path(), &format!("{policy}/{file}"), text);
    }
    fixtures::write(dir.path(), "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp");
    fixtures::write(dir.path(), "sys/class/thermal/thermal_zone0/temp", "80000");
    let words: [&[&str]; 1] = [&["2000 of 3500 MHz", "`sudo cpupower frequency-set --max 3500MHz`"]];
    hold(&Board::read(dir.path()).warnings(), &words);
    fixtures::write(dir.path(), "sys/class/thermal/thermal_zone0/temp", "80500");
    let warned = Board::read(dir.path()).warnings();
    assert!(warned[1].contains("x86_pkg_temp is hot, 80.5 °C") && !warned[1].contains("jetson"), "{warned:?}");
}
