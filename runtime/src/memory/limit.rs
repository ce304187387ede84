//! Where the kernel ends this process.

use std::{fs, path::Path};

/// The least limit that memory cgroups set for this process, bytes; none where there is none that can be read. What other
/// processes of the same group take is not known here.
pub fn limit() -> Option<u64> {
    limit_in(Path::new("/"))
}

/// [`limit`] as the files below `root` tell it.
fn limit_in(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let of_group = |line: &str| -> Option<u64> {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let (tree, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // Groups above count, too; in a container the tree may begin at its own.
        let above = Path::new(group.trim_start_matches('/')).ancestors();
        let read = |group| fs::read_to_string(root.join(tree).join(group).join(file)).ok()?.trim().parse().ok();
        above.filter_map(read).min()
    };
    groups.lines().filter_map(of_group).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        limit_in(root.path())
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_counts() {
        let second = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(told(&[second, ("sys/fs/cgroup/a/b/memory.max", "max\n")]), None);
        let limits = [("sys/fs/cgroup/a/b/memory.max", "4096\n"), ("sys/fs/cgroup/a/memory.max", "1024\n")];
        assert_eq!(told(&[second, limits[0], limits[1]]), Some(1024));
        assert_eq!(told(&[second, limits[0]]), Some(4096));
        // A container sees its own group as the root.
        assert_eq!(told(&[second, ("sys/fs/cgroup/memory.max", "512\n")]), Some(512));
        let first = ("proc/self/cgroup", "5:cpu,memory:/x\n3:cpuset:/y\n0::/\n");
        assert_eq!(told(&[first, ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "77\n")]), Some(77));
        assert_eq!(told(&[first, ("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "77\n")]), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        assert_eq!(told(&[]), None);
        for groups in ["", "0", "0:", "0::", ":::\n\n::", "0::/../..", "memory"] {
            assert_eq!(told(&[("proc/self/cgroup", groups)]), None, "{groups}");
        }
        let second = ("proc/self/cgroup", "0::/a\n");
        for text in ["", "-1", "much", "99999999999999999999999"] {
            assert_eq!(told(&[second, ("sys/fs/cgroup/a/memory.max", text)]), None, "{text}");
        }
    }
}
