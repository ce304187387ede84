//! Chromium without a window.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Names that it has.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Where this is set, a machine without it is an error.
const REQUIRED: &str = "NASBN_REQUIRE_CHROMIUM";

/// A Chromium on the search path; none with a word of it, where none need be.
pub fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|file| file.is_file());
    if found.is_none() {
        assert!(env::var_os(REQUIRED).is_none(), "{REQUIRED} is set and there is no Chromium on PATH");
        eprintln!("skipped: no Chromium on PATH");
    }
    found
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub dark: bool,
    pub width: u32,
    pub height: u32,
}

/// What Chromium wrote to its standard output and what the page logged.
pub fn open(chromium: &Path, page: &Path, look: Look, task: &str) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let ran = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={},{}", look.width, look.height))
        .arg(format!("--blink-settings=preferredColorScheme={}", if look.dark { 0 } else { 1 }))
        .arg(task)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    let logged = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&ran.stdout).into_owned(), logged)
}
