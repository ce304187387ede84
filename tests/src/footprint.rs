//! What the `nasbn` of a board may weigh and need: its size, its glibc, its libraries.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use nasbn_targets::elf::{Elf, GlibcVersion, Machine};
/// Where `cargo jetson` builds below the target directory (another compiler's artefacts may be there), and with which profile.
pub use nasbn_targets::package::{CROSS_DIR as DIRECTORY, DEVICE_PROFILE as PROFILE};

/// Triple of the boards.
pub const BOARD: &str = "aarch64-unknown-linux-gnu";

/// The oldest glibc that a board has: that of JetPack 4.
pub const GLIBC_FLOOR: GlibcVersion = GlibcVersion::new(2, 27);
/// A stripped `nasbn` has fewer bytes.
pub const MOST_BYTES: u64 = 3_000_000;
/// What a program may be linked with: the C library and its parts (which libdl and libpthread are up to glibc 2.33),
/// the compiler's, and the loader.
pub const LIBRARIES: [&str; 6] =
    ["ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0"];

/// Size and needs of a program.
#[derive(Debug)]
pub struct Footprint {
    /// Bytes of the file.
    pub bytes: u64,
    /// Header, dynamic section and symbol versions.
    pub elf: Elf,
}

impl Footprint {
    /// Reads a program.
    ///
    /// # Errors
    /// If it cannot be read or is none.
    pub fn read(program: &Path) -> Result<Self> {
        let bytes = fs::metadata(program).with_context(|| program.display().to_string())?.len();
        let elf = Elf::read(program).map_err(|error| anyhow::anyhow!("{error}\nhint: {}", error.hint()))?;
        Ok(Self { bytes, elf })
    }

    /// What is not as a board needs it, a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.elf.machine != Machine::Aarch64 {
            problems.push(format!("it is for {}, not for aarch64", self.elf.machine));
        }
        if self.elf.symbols {
            problems.push("it is not stripped".into());
        }
        if self.bytes >= MOST_BYTES {
            problems.push(format!("it has {} bytes; fewer than {MOST_BYTES} are allowed", self.bytes));
        }
        match self.elf.glibc {
            Some(glibc) if glibc > GLIBC_FLOOR => {
                problems.push(format!("it needs glibc {glibc}; boards may have {GLIBC_FLOOR}"));
            }
            Some(_) => {}
            // Nothing that is linked with glibc needs no version of it.
            None => problems.push("it names no version of glibc".into()),
        }
        let others = self.elf.needed.iter().filter(|library| !LIBRARIES.contains(&library.as_str()));
        problems.extend(others.map(|library| format!("it needs {library}, which boards may lack")));
        problems
    }
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        writeln!(f, "size       {megabytes:.2} MB")?;
        match self.elf.glibc {
            Some(glibc) => writeln!(f, "glibc      {glibc} or newer")?,
            None => writeln!(f, "glibc      none")?,
        }
        write!(f, "libraries  {}", self.elf.needed.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a board needs it.
    fn sound() -> Footprint {
        let needed = LIBRARIES.map(str::to_owned).to_vec();
        let interpreter = Some("/lib/ld-linux-aarch64.so.1".to_owned());
        let elf = Elf { machine: Machine::Aarch64, interpreter, needed, glibc: Some(GLIBC_FLOOR), symbols: false };
        Footprint { bytes: MOST_BYTES - 1, elf }
    }

    #[test]
    fn each_thing_that_a_board_has_not_is_found() {
        assert_eq!(sound().problems(), [""; 0]);
        type Change = fn(&mut Footprint);
        let changes: [(Change, &str); 6] = [
            (|f| f.bytes += 1, "it has 3000000 bytes; fewer than 3000000 are allowed"),
            (|f| f.elf.machine = Machine::X86_64, "it is for x86_64, not for aarch64"),
            (|f| f.elf.symbols = true, "it is not stripped"),
            (|f| f.elf.glibc = Some(GlibcVersion::new(2, 28)), "it needs glibc 2.28; boards may have 2.27"),
            (|f| f.elf.glibc = None, "it names no version of glibc"),
            (|f| f.elf.needed.push("libstdc++.so.6".into()), "it needs libstdc++.so.6, which boards may lack"),
        ];
        for (change, problem) in changes {
            let mut changed = sound();
            change(&mut changed);
            assert_eq!(changed.problems(), [problem]);
        }
    }

    #[test]
    fn the_tests_own_executable_would_not_do() {
        let own = Footprint::read(&std::env::current_exe().unwrap()).unwrap();
        let problems = own.problems();
        assert!(problems.iter().any(|problem| problem == "it is not stripped"), "{problems:?}");
        assert!(own.bytes > MOST_BYTES && own.to_string().contains("libc.so.6"), "{own}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let error = Footprint::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml is neither") && error.to_string().contains("hint:"), "{error}");
    }
}
