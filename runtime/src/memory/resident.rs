//! What the kernel holds for this process.

use std::{fs::File, io::Read};

/// Memory of this process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Held now (`VmRSS`).
    pub now: u64,
    /// Of that, what is in no file (`RssAnon`), so that the kernel cannot drop and read it again; all of it where that is not told.
    pub anonymous: u64,
    /// Held at most since the process began (`VmHWM`).
    pub peak: u64,
}

/// Bytes that are read of the file: what is looked for comes long before.
const READ: usize = 4096;

/// What the kernel holds for this process; none where it does not tell. It asks the allocator for nothing: it is looked at in
/// every step.
pub fn resident() -> Option<Resident> {
    let (mut file, mut text, mut length) = (File::open("/proc/self/status").ok()?, [0; READ], 0);
    while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).ok()? {
            0 => break,
            read => length += read,
        }
    }
    parse(text.get(..length)?)
}

fn parse(status: &[u8]) -> Option<Resident> {
    let field = |name: &str| -> Option<u64> {
        let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
        std::str::from_utf8(line).ok()?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let now = field("VmRSS:")?;
    // Both are counted loosely: the highest may lag behind.
    let anonymous = field("RssAnon:").unwrap_or(now);
    Some(Resident { now, anonymous, peak: field("VmHWM:")?.max(now) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_what_is_no_status_is_none() {
        let status = b"Name:\t\xff\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t    512 kB\n";
        assert_eq!(parse(status), Some(Resident { now: 1 << 20, anonymous: 1 << 19, peak: 2 << 20 }));
        assert_eq!(parse(b"VmHWM: 1 kB\nVmRSS: 3 kB\n"), Some(Resident { now: 3072, anonymous: 3072, peak: 3072 }));
        for text in
            ["", "VmRSS: 1 kB", "VmRSS: x kB\nVmHWM: 1 kB", "VmRSS: 1\nVmHWM: 1", "VmRSS: 99999999999999999999 kB"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_some() {
        assert!(
            resident()
                .is_some_and(|r| r.anonymous > 10_000 && r.now > 100_000 && r.peak >= r.now && r.now >= r.anonymous)
        );
    }
}
