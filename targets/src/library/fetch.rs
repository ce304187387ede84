//! Getting a package and taking a file out of it, with the user's own package managers.

use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Library, Manager, PinnedFile, ProvisionError};

/// Environment variable that names the Python program; `python3` if it is not set.
pub const PYTHON: &str = "NASBN_PYTHON";
/// Environment variable that names the npm program; `npm` if it is not set.
pub const NPM: &str = "NASBN_NPM";

/// Lines of a failed program's output that an error repeats.
const LAST_WORDS: usize = 4;

/// How packages are fetched and unpacked.
pub trait Fetcher {
    /// Fetches the package of `library` into the empty directory `into`; the archive's path.
    ///
    /// # Errors
    /// If the package manager is missing or fails.
    fn fetch(&self, library: &Library, into: &Path) -> Result<PathBuf, ProvisionError>;

    /// Writes `member` of `archive`, which is that of `library`, to `to`.
    ///
    /// # Errors
    /// If the archive cannot be read or holds no such member.
    fn extract(&self, archive: &Path, library: &Library, member: &PinnedFile, to: &Path) -> Result<(), ProvisionError>;
}

/// pip and npm, and Python's own archive modules.
#[derive(Clone, Debug)]
pub struct PackageManagers {
    /// The Python program.
    pub python: String,
    /// The npm program.
    pub npm: String,
    /// Called before a package is fetched, which can take a while.
    pub announce: fn(&Library),
}

impl Default for PackageManagers {
    /// The programs that [`PYTHON`] and [`NPM`] name; announces nothing.
    fn default() -> Self {
        // They are started in another directory, where a relative path would name something else.
        let whole = |name: String| match path::absolute(&name) {
            Ok(path) if name.contains('/') => path.to_string_lossy().into_owned(),
            _ => name,
        };
        let named = |variable: &str, usual: &str| env::var(variable).map_or_else(|_| usual.to_owned(), whole);
        Self { python: named(PYTHON, "python3"), npm: named(NPM, "npm"), announce: |_| {} }
    }
}

impl Fetcher for PackageManagers {
    fn fetch(&self, library: &Library, into: &Path) -> Result<PathBuf, ProvisionError> {
        (self.announce)(library);
        let package = &library.package;
        let mut command = match package.manager {
            Manager::Pip => {
                let mut command = Command::new(&self.python);
                command.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]);
                command.args(["--retries", "2", "--no-deps", "--only-binary=:all:"]);
                // One Python version for all, so that every machine gets the wheel that was pinned.
                command.args(["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]);
                if let Some(platform) = &package.platform {
                    command.args(["--platform", platform]);
                }
                command.arg("--dest").arg(into).arg(format!("{}=={}", package.name, package.version));
                command
            }
            Manager::Npm => {
                let mut command = Command::new(&self.npm);
                // Without limits on retries it takes minutes to say that there is no network.
                command.args(["pack", "--loglevel=error", "--no-update-notifier", "--prefer-offline"]);
                command.args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--pack-destination"]);
                command.arg(into).arg(format!("{}@{}", package.name, package.version));
                command
            }
        };
        // pip puts what it downloads into the temporary directory first: that one is removed with `into`. Started
        // there too, neither program takes the settings or modules of a project that it happens to stand in.
        command.env("TMPDIR", into).current_dir(into);
        run(&mut command, &package.to_string(), into, |command, output| ProvisionError::Fetch {
            what: package.to_string(),
            command,
            output,
        })?;
        let archive = into.join(&library.archive.name);
        if archive.is_file() {
            return Ok(archive);
        }
        let left = fs::read_dir(into).map_err(|source| ProvisionError::Io { path: into.to_owned(), source })?;
        let left: Vec<String> = left.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        Err(ProvisionError::Fetch {
            what: package.to_string(),
            command: words(&command),
            output: format!("nothing, but left [{}] instead of {}", left.join(", "), library.archive.name),
        })
    }

    fn extract(&self, archive: &Path, library: &Library, member: &PinnedFile, to: &Path) -> Result<(), ProvisionError> {
        const UNPACK: &str = "\
import shutil, sys, tarfile, zipfile
archive, member, out = sys.argv[1:]
if zipfile.is_zipfile(archive):
    source = zipfile.ZipFile(archive).open(member)
else:
    source = tarfile.open(archive).extractfile(member)
with open(out, 'wb') as file:
    shutil.copyfileobj(source, file, 1 << 20)
";
        let mut command = Command::new(&self.python);
        command.args(["-I", "-c", UNPACK]).arg(archive).arg(&member.name).arg(to);
        let archive = library.archive.name.clone();
        run(&mut command, &library.package.to_string(), to, |_, output| ProvisionError::Unpack { archive, output })
    }
}

/// Runs `command`, which fetches `what` and writes `place`; `failed` makes an error of the command and its last words.
fn run(
    command: &mut Command,
    what: &str,
    place: &Path,
    failed: impl FnOnce(String, String) -> ProvisionError,
) -> Result<(), ProvisionError> {
    let missing = |program| Err(ProvisionError::MissingProgram { program, what: what.to_owned() });
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return missing(program),
        other => other.map_err(|source| ProvisionError::Io { path: program.clone().into(), source })?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if said.contains("No module named pip") {
        return missing(format!("{program} -m pip"));
    }
    if said.contains("No space left on device") {
        return Err(ProvisionError::Io { path: place.to_owned(), source: io::ErrorKind::StorageFull.into() });
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
    Err(failed(words(command), if last.is_empty() { output.status.to_string() } else { last }))
}

/// The program and what it was to do, without its options.
fn words(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let verbs = arguments.iter().take_while(|a| !a.starts_with("--"));
    let package = arguments.last().into_iter();
    std::iter::once(program).chain(verbs.chain(package).map(|a| a.to_string())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
