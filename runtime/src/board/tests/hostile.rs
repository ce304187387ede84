//! Trees that hold anything but what they should: nothing stops, hangs or grows.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::ffi::OsStrExt, os::unix::fs::symlink, path::Path};

use crate::board::{
    Board,
    fixtures::{self, Kind},
    power::Rails,
    throttle::Snapshot,
};

/// Every path that any board has.
fn paths() -> Vec<String> {
    let kinds = [Kind::Nano, Kind::Tx2, Kind::XavierNx, Kind::AgxXavier, Kind::OrinNano, Kind::AgxOrin];
    let mut paths: Vec<String> = kinds.into_iter().flat_map(fixtures::entries).map(|(path, _)| path).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Makes something of every path, and reads the board.
fn read_with(make: impl Fn(&Path)) -> Board {
    let dir = tempfile::tempdir().unwrap();
    for path in paths() {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        make(&path);
    }
    let board = Board::read(dir.path());
    let (before, after) = (Snapshot::take(dir.path()), Snapshot::take(dir.path()));
    assert_eq!(after.throttled_since(&before), Vec::<String>::new());
    if let Some(rails) = Rails::find(dir.path()) {
        let _any = (rails.read().is_ok(), rails.total_milliwatts().is_ok());
    }
    board
}

/// That nothing but names of zones and cores was found, and that notes say so.
fn nothing_but_notes(board: &Board) {
    assert_eq!((&board.model, &board.l4t, &board.kernel, &board.power_mode), (&None, &None, &None, &None));
    assert_eq!((&board.cores, &board.gpu, board.memory_bytes), (&None, &None, None));
    assert!(board.cpu.is_empty() && board.rails.is_empty() && board.total_milliwatts.is_none(), "{board:?}");
    assert!(board.thermal.iter().all(|zone| zone.celsius.is_none()), "{board:?}");
    assert!((10..=64).contains(&board.notes.len()), "{}", board.notes.len());
    assert!(board.notes.iter().all(|note| note.len() < 400 && !note.chars().any(char::is_control)), "{board:?}");
    assert!(board.warnings().is_empty(), "{:?}", board.warnings());
}

#[test]
fn an_empty_root_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Board::read(dir.path()), Board::default());
    assert_eq!(Board::read(&dir.path().join("not/there")), Board::default());
    assert!(Rails::find(dir.path()).is_none());
    assert_eq!(Snapshot::take(dir.path()), Snapshot::default());
}

#[test]
fn rubbish_directories_and_loops_are_told() {
    let binary: Vec<u8> = (0..=255u8).cycle().take(10_000).collect();
    nothing_but_notes(&read_with(|path| fs::write(path, &binary).unwrap()));
    nothing_but_notes(&read_with(|path| fs::write(path, [0xff, 0xfe, 0x80]).unwrap()));
    nothing_but_notes(&read_with(|path| fs::write(path, "").unwrap()));
    nothing_but_notes(&read_with(|path| fs::create_dir(path).unwrap()));
    nothing_but_notes(&read_with(|path| symlink(path, path).unwrap()));
}

#[test]
fn a_pipe_is_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    nothing_but_notes(&read_with(|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap()));
}

#[test]
fn files_are_read_up_to_a_bound() {
    /// More than could be read; a hole in the file, so no room is needed.
    const HUGE: u64 = 1 << 40;
    nothing_but_notes(&read_with(|path| fs::File::create(path).unwrap().set_len(HUGE).unwrap()));
    nothing_but_notes(&read_with(|path| fs::write(path, "x".repeat(1 << 17)).unwrap()));
}

#[test]
fn numbers_beyond_all_measure_are_told() {
    for number in ["99999999999999999999999", "9223372036854775807", "-9223372036854775808"] {
        let board = read_with(|path| {
            let named = path.file_name().unwrap().to_string_lossy();
            let name = named.ends_with("type") || named.contains("label") || named.starts_with("rail_name");
            fs::write(path, if name { "VDD_IN" } else { number }).unwrap();
        });
        assert!(board.thermal.iter().all(|zone| zone.celsius.is_none()) && board.rails.is_empty(), "{board:?}");
        assert_eq!((board.cores, board.memory_bytes, board.power_mode.as_ref()), (None, None, None));
        assert!(board.notes.iter().any(|note| note.starts_with("power: rail VDD_IN")), "{:?}", board.notes);
    }
}

#[test]
fn names_that_are_not_text_are_passed_over() {
    let dir = fixtures::tree(Kind::Nano);
    let whole = Board::read(dir.path());
    let name = std::ffi::OsStr::from_bytes(b"thermal_zone\xff");
    fs::create_dir(dir.path().join("sys/class/thermal").join(name)).unwrap();
    assert_eq!(Board::read(dir.path()), whole);
}

#[test]
fn one_bad_file_costs_its_field_only() {
    let whole = Board::read(fixtures::tree(Kind::OrinNano).path());
    let dir = fixtures::tree(Kind::OrinNano);
    fixtures::write(dir.path(), "proc/device-tree/model", [0xff]);
    fixtures::write(dir.path(), "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr3_input", "many\n");
    fixtures::write(dir.path(), "sys/class/thermal/thermal_zone0/temp", "warm\n");
    let board = Board::read(dir.path());
    assert_eq!(board.model, None);
    assert_eq!((board.rails.len(), board.total_milliwatts), (2, whole.total_milliwatts));
    assert_eq!(board.thermal[0].celsius, None);
    assert_eq!(board.thermal[1..], whole.thermal[1..]);
    assert_eq!((board.cpu, board.gpu, board.power_mode), (whole.cpu, whole.gpu, whole.power_mode));
    for told in [
        "proc/device-tree/model is not text",
        ": sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr3_input holds `many`",
        "`warm`",
    ] {
        assert!(board.notes.iter().any(|note| note.contains(told)), "{told}: {:?}", board.notes);
    }
}
