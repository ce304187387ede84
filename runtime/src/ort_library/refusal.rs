//! Why the system's loader refuses a library, in words that say what would be right.

use std::{env::consts::ARCH, fs::File, io::Read, path::Path};

/// What is wrong with a file that does not load: that it is no library, or one of another processor, by the head of the file;
/// otherwise what the loader says.
pub(super) fn reason(path: &Path) -> String {
    match head(path) {
        Err(error) => error.to_string(),
        Ok(head) => match processor(&head) {
            None => "it is no ELF library".to_owned(),
            Some(of) if of != ARCH => format!("it is for {of}, and this program for {ARCH}"),
            Some(_) => loader(path),
        },
    }
}

/// Bytes of the head of an ELF file as far as the processor.
const HEAD: usize = 20;

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The processor that an ELF file is for, by Rust's name where it has one; none if it is no ELF file (System V ABI, "ELF header").
fn processor(head: &[u8]) -> Option<String> {
    let is_elf = head.len() == HEAD && head.starts_with(b"\x7fELF");
    is_elf.then(|| match (u16::from_le_bytes([head[18], head[19]]), head[4]) {
        (62, 2) => "x86_64".to_owned(),
        (183, 2) => "aarch64".to_owned(),
        (3, _) => "x86".to_owned(),
        (40, _) => "arm".to_owned(),
        (number, _) => format!("the processor that ELF numbers {number}"),
    })
}

/// What the loader says. Asking it again does no harm: a library that does not load leaves nothing behind.
fn loader(path: &Path) -> String {
    match ort::init_from(path) {
        Ok(_) => "it does not tell its version".to_owned(),
        // It names the path, which the error has before it.
        Err(error) => error.to_string().replace(&format!("`{}`", path.display()), "it"),
    }
}

/// What a user can do about a reason.
pub(super) fn hint(reason: &str) -> &'static str {
    if reason.contains("GLIBC_") || reason.contains("GLIBCXX_") {
        "take a library for this system's glibc: 1.17.3 to 1.28 need 2.27, 1.30 and newer 2.28 (`nasbn-targets package` picks one)"
    } else if reason.contains("cannot open shared object file") {
        "a library that it needs is missing: install it, or add its directory to LD_LIBRARY_PATH"
    } else {
        "name libonnxruntime.so of ONNX Runtime 1.17 or newer for this machine (`nasbn-targets provision` fetches one)"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_processor_is_read_from_the_head() {
        let head = |class: u8, machine: u16| {
            let mut head = vec![0u8; HEAD];
            head[..4].copy_from_slice(b"\x7fELF");
            head[4] = class;
            head[18..].copy_from_slice(&machine.to_le_bytes());
            head
        };
        for (class, machine, name) in [(2, 62, "x86_64"), (2, 183, "aarch64"), (1, 3, "x86"), (1, 40, "arm")] {
            assert_eq!(processor(&head(class, machine)).as_deref(), Some(name));
        }
        assert!(processor(&head(2, 243)).unwrap().contains("243"));
        assert_eq!(processor(&head(2, 62)[..HEAD - 1]), None);
        assert_eq!(processor(b"#!/bin/sh\necho a library\n"), None);
    }
}
