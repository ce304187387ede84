//! Running scripts on a board through the `ssh` program.

use std::{
    env,
    io::{self, Write},
    process::{Child, Command, Output, Stdio},
    thread,
};

use super::DeployError;

/// Environment variable that names the ssh program; `ssh` if it is not set.
pub const SSH: &str = "NASBN_SSH";

/// Settings of every connection. ssh takes the first value of each: those of `--ssh-option` come before, and those of the
/// user's files after.
const SETTINGS: [&str; 4] = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=3"];
/// Exit status of ssh when it failed itself.
const OWN_FAILURE: i32 = 255;

/// What writes the standard input of a script.
pub type Input<'a> = &'a (dyn Fn(&mut dyn Write) -> io::Result<()> + Sync);

/// A board, and how it is reached.
#[derive(Clone, Debug)]
pub struct Remote {
    program: String,
    host: String,
    port: Option<u16>,
    options: Vec<String>,
}

impl Remote {
    /// A board at `host` (`[USER@]HOST`), with settings of ssh (`KEY=VALUE`).
    ///
    /// # Errors
    /// If `host` or a setting cannot be one.
    pub fn new(host: &str, port: Option<u16>, options: &[String]) -> Result<Self, DeployError> {
        let odd = host.is_empty() || host.starts_with('-') || host.chars().any(|c| c.is_control() || c.is_whitespace());
        if odd {
            return Err(DeployError::Host { host: host.to_owned() });
        }
        if let Some(option) = options.iter().find(|o| !o.contains('=') || o.chars().any(char::is_control)) {
            return Err(DeployError::Option { option: option.clone(), reason: None });
        }
        let program = env::var(SSH).unwrap_or_else(|_| "ssh".to_owned());
        Ok(Self { program, host: host.to_owned(), port, options: options.to_vec() })
    }

    /// Its name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The command that runs `script` there with the arguments `$1`, `$2` ...
    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Its words are told apart below.
        command.env("LC_ALL", "C").arg("-T");
        for option in self.options.iter().map(String::as_str).chain(SETTINGS) {
            command.args(["-o", option]);
        }
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        let quoted = arguments.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ");
        command.args(["--", &self.host, &format!("exec sh -c {} sh {quoted}", quote(script))]);
        command
    }

    fn started(&self, command: &mut Command) -> Result<Child, DeployError> {
        command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                DeployError::MissingProgram { program: self.program.clone(), host: self.host.clone() }
            }
            _ => DeployError::Io { what: self.program.clone(), source },
        })
    }

    /// Runs a script there; what it wrote to its standard output.
    ///
    /// # Errors
    /// If ssh or the script fails, or the input cannot be made.
    pub fn run(&self, script: &str, arguments: &[&str], input: Option<Input<'_>>) -> Result<String, DeployError> {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut command = self.command(script, arguments);
        let mut child = self.started(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let failed = |source| DeployError::Io { what: self.program.clone(), source };
        let (output, written) = match (input, child.stdin.take()) {
            (Some(input), Some(stdin)) => thread::scope(|scope| {
                let writing = scope.spawn(move || {
                    let mut out = io::BufWriter::with_capacity(1 << 16, stdin);
                    input(&mut out).and_then(|()| out.flush())
                });
                let output = child.wait_with_output();
                (output, writing.join().unwrap_or_else(|_| Err(io::Error::other("the package could not be read"))))
            }),
            _ => (child.wait_with_output(), Ok(())),
        };
        let output = output.map_err(failed)?;
        match written {
            // A script that has failed reads no further: why it did is told below.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(DeployError::Io { what: "the package".to_owned(), source: error });
            }
            _ => {}
        }
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.failure(&output))
    }

    /// Runs a script there, with this program's own outputs; its exit status.
    ///
    /// # Errors
    /// If ssh fails.
    pub fn show(&self, script: &str, arguments: &[&str]) -> Result<u8, DeployError> {
        let mut command = self.command(script, arguments);
        let mut child = self.started(command.stdin(Stdio::null()))?;
        let status = child.wait().map_err(|source| DeployError::Io { what: self.program.clone(), source })?;
        match status.code() {
            Some(OWN_FAILURE) | None => {
                let said = format!("it ended with {status}");
                Err(DeployError::Ssh { host: self.host.clone(), port: self.port, said })
            }
            Some(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        }
    }

    /// Why ssh or a script there failed.
    pub(super) fn failure(&self, output: &Output) -> DeployError {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let host = self.host.clone();
        let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let said = line.map_or_else(|| output.status.to_string(), ToOwned::to_owned);
        if output.status.code() == Some(OWN_FAILURE) {
            return self.own_failure(&stderr, said);
        }
        let has = |words: &str| stderr.contains(words);
        match output.status.code() {
            Some(95) => DeployError::Stranded { host, said },
            Some(96) => DeployError::Stopped { host },
            Some(94) => DeployError::InTheWay { host, said },
            Some(97) => DeployError::Busy { host, said },
            _ if has("No space left on device") || has("Disk quota exceeded") => {
                DeployError::NoRoom { host, needed: None, free: None }
            }
            Some(93) => DeployError::Damaged { host, said },
            _ => DeployError::Refused { host, said },
        }
    }

    fn own_failure(&self, stderr: &str, said: String) -> DeployError {
        let (host, port) = (self.host.clone(), self.port);
        let has = |words: &[&str]| words.iter().any(|words| stderr.contains(words));
        let line = |words: &[&str]| stderr.lines().map(str::trim).find(|line| words.iter().any(|w| line.contains(w)));
        // ssh ends with what it says of a setting, unless it has but warned of one that it passes over.
        let warned = ["Unsupported option", "Deprecated option"].iter().any(|words| said.contains(words));
        if said.starts_with("command-line") && !warned {
            return DeployError::Option { option: self.refused().join(" "), reason: Some(said) };
        }
        // Of the files, the first line names file and line; the last counts them.
        if let Some(said) =
            line(&["Bad configuration option", "Bad owner or permissions on", "bad configuration option"])
        {
            return DeployError::Config { said: said.to_owned() };
        }
        if has(&["HOST IDENTIFICATION HAS CHANGED"]) {
            return DeployError::OtherKey { host, port };
        }
        if has(&["Host key verification failed"]) {
            return DeployError::UnknownKey { host, port };
        }
        if has(&["Could not resolve hostname"]) {
            return DeployError::NoAddress { host, said };
        }
        if has(&["Connection refused"]) {
            return DeployError::NoServer { host, said };
        }
        if has(&["Permission denied", "Too many authentication failures"]) {
            return DeployError::NotLetIn { host, port, said };
        }
        if has(&[
            "timed out",
            "No route to host",
            "is unreachable",
            "not responding",
            "Connection reset",
            "Connection closed",
        ]) {
            return DeployError::NoAnswer { host, said };
        }
        DeployError::Ssh { host, port, said }
    }

    /// The setting that ssh refuses, which it does not always name; all of them if it takes each by itself.
    fn refused(&self) -> Vec<&str> {
        // Says how it would connect, and does not.
        let takes = |option: &&str| {
            let asked = Command::new(&self.program).args(["-G", "-o", option, "--", &self.host]).output();
            asked.is_ok_and(|output| output.status.success())
        };
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        options.iter().find(|option| !takes(option)).map_or(options.clone(), |refused| vec![refused])
    }
}

/// A word as a shell takes it literally.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
