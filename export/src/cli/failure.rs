//! How the program ends, and how it says why.

use std::{fmt, io};

use crate::bundle::{BundleError, check::CheckError, write::WriteError};

/// Exit status of the program. The other numbers of nasbn's commands (1, 3 and 4) do not occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Bad usage or input.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, in words, with what to do about it.
#[derive(Debug)]
pub struct Failure {
    message: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// Bad usage or input.
    pub fn new(message: impl fmt::Display, hint: Option<impl Into<String>>) -> Self {
        Self { message: Some(message.to_string()), hint: hint.map(Into::into) }
    }

    /// What standard output says; a reader that went away is no failure.
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self { message: None, hint: None }
        } else {
            Self::new(format!("standard output: {error}"), Some("check where the output goes; the disk may be full"))
        }
    }

    /// Says it on stderr and gives the exit status.
    pub fn report(&self) -> Exit {
        let Some(message) = &self.message else { return Exit::Done };
        super::output::say(format!("error: {message}"));
        if let Some(hint) = &self.hint {
            super::output::say(format!("hint: {hint}"));
        }
        Exit::Usage
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self::new(&error, Some(error.hint()))
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        Self::new(&error, Some(error.hint()))
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::new(&error, Some(error.hint()))
    }
}
