//! Why the system's loader refuses a library, in words that say what would be right.

use std::{
    env::consts::ARCH,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// What is wrong with a file, seen without loading it: that it is no library, one of another processor, or cut off. The loader
/// would map a file that is cut off all the same, and end the process when it reads what is not there.
pub(super) fn seen(path: &Path) -> Option<String> {
    look(path).unwrap_or_else(|error| Some(error.to_string()))
}

/// Bytes of a 64-bit ELF header (System V ABI).
const ELF_HEADER: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER: usize = 56;
/// Type of a program header whose part of the file is mapped.
const LOAD: u64 = 1;

fn look(path: &Path) -> io::Result<Option<String>> {
    // One that is none may block whoever opens it.
    if !fs::metadata(path)?.is_file() {
        return Ok(Some("it is no file".to_owned()));
    }
    let (file, mut header) = (File::open(path)?, [0; ELF_HEADER]);
    let length = file.metadata()?.len();
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Some("it is no ELF library".to_owned()));
        }
        read => read?,
    }
    Ok(match processor(&header) {
        None => Some("it is no ELF library".to_owned()),
        Some(of) if of != ARCH => Some(format!("it is for {of}, and this program for {ARCH}")),
        Some(_) => {
            // They lie where the header says: often behind it, sometimes at the end.
            let mut programs = vec![0; number::<2>(&header, 56) as usize * PROGRAM_HEADER];
            match file.read_exact_at(&mut programs, number::<8>(&header, 32)) {
                Ok(()) => Some(mapped(&programs)).filter(|&needed| needed > length),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(length + 1),
                Err(error) => return Err(error),
            }
            .map(|needed| format!("it is cut off: {length} bytes of {needed} or more"))
        }
    })
}

/// A little-endian number of `BYTES` bytes in a header; 0 where it ends before.
fn number<const BYTES: usize>(header: &[u8], at: usize) -> u64 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<BYTES>());
    bytes.map_or(0, |bytes| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Bytes that a file must have for all that its program headers map of it.
fn mapped(programs: &[u8]) -> u64 {
    let end = |program: &[u8]| number::<8>(program, 8).saturating_add(number::<8>(program, 32));
    let loaded = |program: &&[u8]| number::<4>(program, 0) == LOAD;
    programs.chunks_exact(PROGRAM_HEADER).filter(loaded).map(end).max().unwrap_or(0)
}

/// The processor that an ELF file is for, by Rust's name where it has one; none if it is no ELF file (System V ABI, "ELF header").
fn processor(head: &[u8]) -> Option<String> {
    let is_elf = head.len() >= ELF_HEADER && head.starts_with(b"\x7fELF");
    is_elf.then(|| match (u16::from_le_bytes([head[18], head[19]]), head[4]) {
        (62, 2) => "x86_64".to_owned(),
        (183, 2) => "aarch64".to_owned(),
        (3, _) => "x86".to_owned(),
        (40, _) => "arm".to_owned(),
        (number, _) => format!("the processor that ELF numbers {number}"),
    })
}

/// What the loader says of a file in which nothing wrong was seen. Asking it again does no harm: a library that does not load
/// leaves nothing behind.
pub(super) fn loader(path: &Path) -> String {
    match ort::init_from(path) {
        Ok(_) => "it does not tell its version".to_owned(),
        // It names the path, which the error has before it.
        Err(error) => error.to_string().replace(&format!("`{}`", path.display()), "it"),
    }
}

/// What a user can do about a reason.
pub(super) fn hint(reason: &str) -> &'static str {
    if reason.contains("GLIBC_") || reason.contains("GLIBCXX_") {
        "take a library for this system's glibc: on a desktop `nasbn-targets libraries` lists some, and `nasbn-targets package` \
         puts the right one into a board's package"
    } else if reason.contains("cannot open shared object file") {
        "a library that it needs is missing: install it, or add its directory to LD_LIBRARY_PATH"
    } else {
        "name libonnxruntime.so of ONNX Runtime 1.17 or newer for this machine: a board's package brings one, and on a desktop \
         `nasbn-targets provision` fetches one"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_processor_is_read_from_the_head() {
        let head = |class: u8, machine: u16| {
            let mut head = vec![0u8; ELF_HEADER];
            head[..4].copy_from_slice(b"\x7fELF");
            head[4] = class;
            head[18..20].copy_from_slice(&machine.to_le_bytes());
            head
        };
        for (class, machine, name) in [(2, 62, "x86_64"), (2, 183, "aarch64"), (1, 3, "x86"), (1, 40, "arm")] {
            assert_eq!(processor(&head(class, machine)).as_deref(), Some(name));
        }
        assert!(processor(&head(2, 243)).unwrap().contains("243"));
        assert_eq!(processor(&head(2, 62)[..ELF_HEADER - 1]), None);
        assert_eq!(processor(&[b'#'; ELF_HEADER]), None);
    }

    #[test]
    fn what_is_mapped_is_the_end_of_the_last_part() {
        // Two parts; the second is mapped: 0x300 bytes at 0x1000.
        let mut programs = vec![0u8; 2 * PROGRAM_HEADER];
        programs[PROGRAM_HEADER] = LOAD as u8;
        programs[PROGRAM_HEADER + 9] = 0x10;
        programs[PROGRAM_HEADER + 33] = 0x03;
        assert_eq!(mapped(&programs), 0x1300);
        assert_eq!(mapped(&programs[..PROGRAM_HEADER]), 0);
        (programs[PROGRAM_HEADER + 15], programs[PROGRAM_HEADER + 39]) = (0xff, 0xff);
        assert_eq!(mapped(&programs), u64::MAX);
        assert_eq!((number::<2>(&[1, 2], 0), number::<4>(&[1, 2], 0)), (0x201, 0));
    }
}
