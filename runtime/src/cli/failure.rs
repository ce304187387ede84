//! How the program ends, and how it says why.

use std::{fmt, io};

use nasbn_export::{bundle::BundleError, subnet::SubnetError};

use crate::{
    adapt::{AdaptError, run::RunError},
    checkpoint::CheckpointError,
    data::DataError,
    engine::{CHECK, EngineError},
    journal::{self, JournalError},
    memory::{Bytes, MARGIN_BYTES},
    ort_library::LibraryError,
};

/// Exit status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Finished, but no network is within the limits.
    Infeasible = 1,
    /// Bad usage or input.
    Usage = 2,
    /// The device, library or provider is not available.
    Device = 3,
    /// Stopped early; can be resumed.
    Stopped = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, in words, with what to do about it.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    quiet: bool,
}

impl Failure {
    /// Bad usage or input.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string(), hint: None, quiet: false }
    }

    /// With more to say after the message.
    pub fn and(mut self, more: impl fmt::Display) -> Self {
        self.message += &format!("; {more}");
        self
    }

    /// With another exit status.
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path; directories above a file that is to be written must exist",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "name a place that may be written",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "make room, or name a place that has some"
            }
            _ => "check that the path can be read and written",
        };
        Self::usage(format!("{}: {error}", path.display())).hint(hint)
    }

    /// With the advice to go on from what is on file, once the rest can be written.
    pub fn resumable(self) -> Self {
        self.with_exit(Exit::Stopped).hint(journal::MAKE_ROOM)
    }

    /// What standard output says; a closed pipe ends the program without a word.
    pub fn stdout(error: &io::Error) -> Self {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        let exit = if quiet { Exit::Done } else { Exit::Usage };
        let failure = Self::usage(format!("standard output: {error}")).with_exit(exit);
        Self { quiet, ..failure.hint("check where the output goes; the disk may be full") }
    }

    /// Whether it is an early stop, which can be gone on from.
    pub fn is_stopped(&self) -> bool {
        self.exit == Exit::Stopped
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Says it on stderr and gives the exit status.
    pub fn report(&self) -> Exit {
        if !self.quiet {
            super::output::words(format_args!("error: {}", self.message));
            if let Some(hint) = &self.hint {
                super::output::words(format_args!("hint: {hint}"));
            }
        }
        self.exit
    }
}

impl From<LibraryError> for Failure {
    fn from(error: LibraryError) -> Self {
        Self::usage(&error).with_exit(Exit::Device).hint(error.hint())
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self::usage(&error).hint(error.hint())
    }
}

impl From<SubnetError> for Failure {
    fn from(error: SubnetError) -> Self {
        Self::usage(&error).hint(error.hint())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        if matches!(error, EngineError::NotFinite { .. }) {
            return Self::usage(&error).hint("adapt again with a lower rate, or take an earlier checkpoint");
        }
        if let EngineError::NoRoom { taken, .. } = error {
            return Self::usage(&error).hint(format!(
                "raise that limit, and --memory-budget with it, to more than {}; where there is no such limit, the same command tells the \
                 least budget that would do",
                Bytes(taken.saturating_add(MARGIN_BYTES))
            ));
        }
        let error = match error {
            EngineError::Provider(error) => return error.into(),
            EngineError::Placement(error) => return error.into(),
            other => other,
        };
        let exit = if error.is_of_bundle() { Exit::Usage } else { Exit::Device };
        Self::usage(&error).with_exit(exit).hint(CHECK)
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::usage(&error).hint(error.hint())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let failure = Self::usage(&error).hint(error.hint());
        if let JournalError::Row { .. } = error { failure.resumable() } else { failure }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::usage(&error).hint(error.hint())
    }
}

impl From<(std::path::PathBuf, io::Error)> for Failure {
    fn from((path, error): (std::path::PathBuf, io::Error)) -> Self {
        Self::file(&path, &error)
    }
}

impl From<AdaptError> for Failure {
    fn from(error: AdaptError) -> Self {
        match &error {
            AdaptError::Engine(_) => match error {
                AdaptError::Engine(engine) => engine.into(),
                other => Self::usage(other),
            },
            AdaptError::NonFinite { suggested_rate, .. } => {
                let hint = format!(
                    "start again with --force and --rate {suggested_rate}, or a rate from `nasbn adapt --find-rate`"
                );
                Self::usage(&error).hint(hint)
            }
            AdaptError::NoPath(_) => Self::usage(&error)
                .hint("absent operators cut off nearly every path of this space: train one with --path"),
        }
    }
}

impl From<RunError<Failure>> for Failure {
    fn from(error: RunError<Self>) -> Self {
        match error {
            RunError::Data(error) => error.into(),
            RunError::Step(error) => error.into(),
            RunError::Caller(failure) => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{composite::CompositeError, memory::ProbeError};

    #[test]
    fn who_has_no_exporter_is_told_what_to_do() {
        let error = || EngineError::Tensor("none".into());
        let failure = Failure::from(error());
        for hint in
            [failure.advice().unwrap(), ProbeError::Engine(error()).hint(), CompositeError::Engine(error()).hint()]
        {
            for words in ["on a board with `sha256sum -c SHA256SUMS`", "on a desktop with `nasbn-export check DIR`"] {
                assert!(hint.contains(words), "{hint}");
            }
        }
    }
}
