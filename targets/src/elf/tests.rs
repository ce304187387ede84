//! Files are this test's own executable, and bytes made from it.
#![allow(clippy::unwrap_used)]

use std::env;

use super::*;

fn own() -> Vec<u8> {
    fs::read(env::current_exe().unwrap()).unwrap()
}

/// The own executable with another machine in its header.
fn with_machine(number: u16) -> Vec<u8> {
    const MACHINE_AT: usize = 18;
    let mut data = own();
    data[MACHINE_AT..MACHINE_AT + 2].copy_from_slice(&number.to_le_bytes());
    data
}

#[test]
fn the_tests_own_executable_tells_what_it_needs() {
    let elf = Elf::read(&env::current_exe().unwrap()).unwrap();
    assert_eq!(Some(elf.machine), Machine::of_triple(&crate::library::host_triple()));
    assert!(elf.needed.iter().any(|l| l == "libc.so.6"), "{:?}", elf.needed);
    assert!(elf.interpreter.as_ref().unwrap().contains("ld-linux"), "{:?}", elf.interpreter);
    // Every glibc that Rust supports has 2.17; none has 3.
    let glibc = elf.glibc.unwrap();
    assert!(GlibcVersion::new(2, 17) <= glibc && glibc < GlibcVersion::new(3, 0), "{glibc}");
    assert!(elf.symbols, "tests are not stripped");
}

#[test]
fn the_machine_is_that_of_the_header() {
    for (number, machine, name) in
        [(62, Machine::X86_64, "x86_64"), (183, Machine::Aarch64, "aarch64"), (243, Machine::Other(243), "machine 243")]
    {
        let elf = Elf::parse(&with_machine(number)).unwrap();
        assert_eq!(elf.machine, machine);
        assert_eq!(machine.to_string(), name);
    }
    assert_eq!(Machine::of_triple("aarch64-unknown-linux-gnu"), Some(Machine::Aarch64));
    assert_eq!(Machine::of_triple("riscv64gc-unknown-linux-gnu"), None);
}

#[test]
fn what_is_no_program_is_refused_with_its_path_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    for contents in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01", &own()[..40]] {
        fs::write(&path, contents).unwrap();
        let error = Elf::read(&path).unwrap_err();
        assert!(matches!(&error, ElfError::NotElf { path: at, .. } if *at == path), "{error}");
        assert!(error.hint().contains("built for Linux"));
    }
    for path in [dir.path(), &dir.path().join("none")] {
        let error = Elf::read(path).unwrap_err();
        assert!(matches!(&error, ElfError::Io { .. }) && error.hint().contains("path"), "{error}");
    }
}

#[test]
fn what_could_not_be_loaded_is_refused() {
    type Change = fn(&mut [u8]);
    let changes: [(Change, &str); 3] = [
        // ET_REL; no section table; the other byte order or the smaller class need other files.
        (|data| data[16] = 1, "it is not linked"),
        (
            |data| [40..48, 58..64].into_iter().for_each(|at| data[at].fill(0)),
            "its dynamic section is not in its section table",
        ),
        (|data| data[16] = 4, "it is not linked"),
    ];
    for (change, words) in changes {
        let mut changed = own();
        change(&mut changed);
        let reason = Elf::parse(&changed).unwrap_err();
        assert!(reason.contains(words), "{words}: {reason}");
    }
    // Headers without tables: of 32 bits, and big-endian.
    let header = |class: u8, order: u8| {
        let mut header = b"\x7fELF\0\0\x01".to_vec();
        header.resize(64, 0);
        (header[4], header[5]) = (class, order);
        let (kind, machine, version) = if order == 1 { (16, 18, 20) } else { (17, 19, 23) };
        (header[kind], header[machine], header[version]) = (3, 183, 1);
        header
    };
    assert_eq!(Elf::parse(&header(2, 1)).unwrap().machine, Machine::Aarch64);
    for (class, order) in [(1, 1), (2, 2)] {
        let reason = Elf::parse(&header(class, order)).unwrap_err();
        assert!(reason.contains("of 32 bits or big-endian"), "{class} {order}: {reason}");
    }
}

#[test]
fn no_damaged_file_makes_it_panic_or_hang() {
    let whole = own();
    // The section table is at the end: a file cut anywhere has none, and offsets lead out of it.
    for length in [64, 100, 1000, whole.len() / 2, whole.len() - 1] {
        assert!(Elf::parse(&whole[..length]).is_err(), "{length}");
    }
    // Headers with each byte of theirs turned round; what is read is of no interest.
    for at in 4..64 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let _ = Elf::parse(&damaged);
    }
}

#[test]
fn versions_of_glibc_are_numbers_and_not_texts() {
    let version = |text: &str| text.parse::<GlibcVersion>();
    assert!(version("2.9").unwrap() < version("2.27").unwrap() && version("2.27").unwrap() < version("2.31").unwrap());
    assert_eq!(version("2.27").unwrap().to_string(), "2.27");
    for text in ["", "2", "2.", ".27", "2.x", "2.-1", "+2.27", "2.99999"] {
        assert!(version(text).is_err(), "{text}");
    }
    for (symbol, least) in [
        ("GLIBC_2.17", Some(GlibcVersion::new(2, 17))),
        ("GLIBC_2.2.5", Some(GlibcVersion::new(2, 2))),
        ("GLIBC_ABI_DT_RELR", Some(GlibcVersion::new(2, 36))),
        ("GLIBC_PRIVATE", None),
        ("GLIBCXX_3.4.21", None),
        ("GCC_3.0", None),
    ] {
        assert_eq!(GlibcVersion::of_symbol(symbol.as_bytes()), least, "{symbol}");
    }
}
