//! Programs in a memory cgroup, where one can be made.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A memory cgroup of its own below that of this process; removed when dropped.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// A group whose processes the kernel ends at `bytes`.
    ///
    /// # Errors
    /// Where none can be made: without the right, without the controller, or where the tree is not to be seen.
    pub fn new(bytes: u64) -> io::Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let name = format!("nasbn-test-{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no memory controller");
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
            let (tree, file) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                some if some.split(',').any(|name| name == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => continue,
            };
            let own = Path::new(tree).join(own.trim_start_matches('/'));
            // A container may see its own group as the root.
            let parent = if own.is_dir() { own } else { tree.into() };
            let group = Self(parent.join(&name));
            let limited = || {
                fs::create_dir(&group.0)?;
                fs::OpenOptions::new().write(true).open(group.0.join(file))?;
                fs::write(group.0.join(file), bytes.to_string())?;
                // It is of use only if a process can go there.
                let moved = group.command(Path::new("true")).status()?;
                if moved.success() { Ok(()) } else { Err(io::Error::other("no process can be moved there")) }
            };
            match limited() {
                Ok(()) => return Ok(group),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A program that will run in the group.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
