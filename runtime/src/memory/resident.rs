//! What the kernel holds for this process.

use std::fs;

/// Memory of this process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Held now (`VmRSS`).
    pub now: u64,
    /// Held at most since the process began (`VmHWM`).
    pub peak: u64,
}

/// What the kernel holds for this process; none where it does not tell.
pub fn resident() -> Option<Resident> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Resident> {
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let now = field("VmRSS:")?;
    // Both are counted loosely: the highest may lag behind.
    Some(Resident { now, peak: field("VmHWM:")?.max(now) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_what_is_no_status_is_none() {
        let status = "Name:\tnasbn\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(status), Some(Resident { now: 1 << 20, peak: 2 << 20 }));
        assert_eq!(parse("VmHWM: 1 kB\nVmRSS: 3 kB\n"), Some(Resident { now: 3072, peak: 3072 }));
        for text in
            ["", "VmRSS: 1 kB", "VmRSS: x kB\nVmHWM: 1 kB", "VmRSS: 1\nVmHWM: 1", "VmRSS: 99999999999999999999 kB"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_some() {
        assert!(resident().is_some_and(|r| r.now > 100_000 && r.peak >= r.now));
    }
}
