//! What a program or library of Linux needs of the machine that loads it: processor, libraries, glibc.

mod glibc;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use object::{
    Endianness,
    elf::{self, FileHeader32, FileHeader64},
    read::{
        Error,
        elf::{FileHeader, SectionHeader},
    },
};

pub use glibc::{GlibcVersion, NotAVersion};

/// Largest file that is read: ten times the largest library of ONNX Runtime's CPU packages.
pub const MAX_BYTES: u64 = 512 << 20;
/// Most symbol versions that a file may need; a hostile one could repeat its own without end.
const MAX_VERSIONS: usize = 1 << 16;

/// The processor that a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit ARM (`EM_AARCH64`).
    Aarch64,
    /// 64-bit x86 (`EM_X86_64`).
    X86_64,
    /// Any other: the number in the file's header.
    Other(u16),
}

impl Machine {
    /// That of a triple such as `aarch64-unknown-linux-gnu`; none if it is neither of the two.
    pub fn of_triple(triple: &str) -> Option<Self> {
        match triple.split('-').next() {
            Some("aarch64") => Some(Self::Aarch64),
            Some("x86_64") => Some(Self::X86_64),
            _ => None,
        }
    }

    /// What `uname -m` says on such a machine.
    pub fn uname(self) -> String {
        match self {
            Self::Aarch64 => "aarch64".to_owned(),
            Self::X86_64 => "x86_64".to_owned(),
            Self::Other(number) => format!("machine {number}"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.uname())
    }
}

/// What the header, the dynamic section and the symbol versions of an ELF file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The processor.
    pub machine: Machine,
    /// The loader, of a program: `/lib/ld-linux-aarch64.so.1`.
    pub interpreter: Option<String>,
    /// Libraries that the loader must find (`DT_NEEDED`), in the file's order.
    pub needed: Vec<String>,
    /// The least glibc that has every symbol version needed; none if none is.
    pub glibc: Option<GlibcVersion>,
    /// Whether it still holds the symbol table that `strip` removes.
    pub symbols: bool,
}

/// Why a file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no program and no library.
    #[error("{} is neither a program nor a library of Linux: {reason}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl ElfError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the path, and that the file may be read",
            Self::NotElf { .. } => "name a program or library that was built for Linux, whole and not packed",
        }
    }
}

impl Elf {
    /// Reads a file of at most [`MAX_BYTES`].
    ///
    /// # Errors
    /// [`ElfError`], with the file's path.
    pub fn read(path: &Path) -> Result<Self, ElfError> {
        let io = |source| ElfError::Io { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
        }
        let mut data = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut data)).map_err(io)?;
        if data.len() as u64 > MAX_BYTES {
            return Err(io(io::ErrorKind::FileTooLarge.into()));
        }
        Self::parse(&data).map_err(|reason| ElfError::NotElf { path: path.to_owned(), reason })
    }

    /// Reads the bytes of a program or library, of 32 or 64 bits and either byte order; for the processors that boards have,
    /// of 64 bits and little-endian.
    ///
    /// # Errors
    /// What is wrong with them, which may be that they are an object file, or lack the tables that this is read from.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        const CLASS_AT: usize = 4;
        if !data.starts_with(&elf::ELFMAG) {
            return Err("it does not begin with the bytes of an ELF file".to_owned());
        }
        let parsed = if data.get(CLASS_AT) == Some(&elf::ELFCLASS32.0) {
            parse::<FileHeader32<Endianness>>(data)
        } else {
            parse::<FileHeader64<Endianness>>(data)
        };
        let (elf, form) = parsed.map_err(|error| error.to_string())?;
        let common = form.is_64 && form.little_endian;
        let reason = match elf.machine {
            _ if !form.linked => "it is not linked, as an object file is not",
            _ if form.without_sections => {
                "its dynamic section is not in its section table, so that its needs cannot be read"
            }
            Machine::Aarch64 | Machine::X86_64 if !common => "it is of 32 bits or big-endian, as no board's system is",
            _ => return Ok(elf),
        };
        Err(reason.to_owned())
    }
}

/// What kind of ELF file a file is.
struct Form {
    is_64: bool,
    little_endian: bool,
    /// A program or a library.
    linked: bool,
    /// Its loader would find a dynamic section that its section table does not name.
    without_sections: bool,
}

fn parse<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<(Elf, Form), Error> {
    use object::read::elf::ProgramHeader;

    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let machine = match header.e_machine(endian) {
        elf::EM_AARCH64 => Machine::Aarch64,
        elf::EM_X86_64 => Machine::X86_64,
        other => Machine::Other(other.0),
    };
    let (mut interpreter, mut loads_dynamic) = (None, false);
    for segment in header.program_headers(endian, data)? {
        loads_dynamic |= segment.p_type(endian) == elf::PT_DYNAMIC;
        if let Some(path) = segment.interpreter(endian, data)? {
            interpreter = Some(text(path));
        }
    }
    let sections = header.sections(endian, data)?;
    let has_dynamic = sections.iter().any(|section| section.sh_type(endian) == elf::SHT_DYNAMIC);
    let form = Form {
        is_64: header.is_type_64(),
        little_endian: endian == Endianness::Little,
        linked: [elf::ET_EXEC, elf::ET_DYN].contains(&header.e_type(endian)),
        without_sections: loads_dynamic && !has_dynamic,
    };
    let dynamic = sections.dynamic_table(endian, data)?;
    let mut needed = Vec::new();
    for entry in dynamic.iter().filter(|entry| entry.tag == elf::DT_NEEDED) {
        needed.push(text(dynamic.string(entry)?));
    }
    let mut glibc: Option<GlibcVersion> = None;
    let mut left = MAX_VERSIONS;
    if let Some((mut libraries, strings)) = sections.gnu_verneed(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        while let Some((_, mut versions)) = libraries.next()? {
            while let Some(version) = versions.next()? {
                glibc = glibc.max(GlibcVersion::of_symbol(version.name(endian, strings)?));
                // Beyond that no file has any: it would go round in circles.
                left = left.saturating_sub(1);
                if left == 0 {
                    return Ok((Elf { machine, interpreter, needed, glibc, symbols: false }, form));
                }
            }
        }
    }
    let symbols = sections.iter().any(|section| section.sh_type(endian) == elf::SHT_SYMTAB);
    Ok((Elf { machine, interpreter, needed, glibc, symbols }, form))
}

#[cfg(test)]
mod tests;
