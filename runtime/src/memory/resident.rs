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

/// Bytes of the file that are held at once.
const PIECE: usize = 4096;

/// What the kernel holds for this process; none where it does not tell. It asks the allocator for nothing: it is looked at in
/// every step.
pub fn resident() -> Option<Resident> {
    told(File::open("/proc/self/status").ok()?)
}

/// [`Resident`] as a status tells it, whose lines may be of any length (a user may be in thousands of groups).
fn told(mut status: impl Read) -> Option<Resident> {
    let (mut text, mut length, mut fields) = ([0; PIECE], 0, Fields::default());
    loop {
        let read = status.read(text.get_mut(length..)?).ok()?;
        length += read;
        let held = text.get(..length)?;
        let whole = match read {
            0 => length,
            _ => held.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1),
        };
        held.get(..whole)?.split(|&byte| byte == b'\n').for_each(|line| fields.look(line));
        if read == 0 {
            return fields.resident();
        }
        text.copy_within(whole..length, 0);
        // Of a line that is longer than a piece its beginning is kept, so that the rest is not taken for another line.
        length = (length - whole).min(PIECE / 2);
    }
}

/// What was found so far, bytes.
#[derive(Default)]
struct Fields {
    now: Option<u64>,
    anonymous: Option<u64>,
    peak: Option<u64>,
}

impl Fields {
    fn look(&mut self, line: &[u8]) {
        let field = |name: &str| -> Option<u64> {
            let text = std::str::from_utf8(line.strip_prefix(name.as_bytes())?).ok()?;
            text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        self.now = self.now.or_else(|| field("VmRSS:"));
        self.anonymous = self.anonymous.or_else(|| field("RssAnon:"));
        self.peak = self.peak.or_else(|| field("VmHWM:"));
    }

    fn resident(&self) -> Option<Resident> {
        let now = self.now?;
        // Both are counted loosely: the highest may lag behind.
        Some(Resident { now, anonymous: self.anonymous.unwrap_or(now), peak: self.peak?.max(now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is read in parts of so many bytes at most.
    struct Parts<'a>(&'a [u8], usize);

    impl Read for Parts<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let most = self.1.min(into.len());
            self.0.read(&mut into[..most])
        }
    }

    fn parse(status: &[u8]) -> Option<Resident> {
        told(status)
    }

    #[test]
    fn lines_of_any_length_and_reads_of_any_length_change_nothing() {
        for groups in [0, 180, 350, 369, 370, 371, 372, 3000] {
            // It ends as a line that is looked for, and is none.
            let groups = format!("Groups:\t{}VmRSS: 7 kB\n", "1234567890 ".repeat(groups));
            let status =
                format!("Name:\tnasbn\n{groups}VmHWM:\t 2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t 512 kB\nThreads:\t1\n");
            for most in [1, 7, 1024, PIECE, usize::MAX] {
                let found = told(Parts(status.as_bytes(), most));
                let expected = Resident { now: 1 << 20, anonymous: 1 << 19, peak: 2 << 20 };
                assert_eq!(found, Some(expected), "{} bytes in parts of {most}", status.len());
            }
        }
    }

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
