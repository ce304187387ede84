//! Why the program failed, in words, with what to do about it and the exit status.

use std::{fmt, io, process::ExitCode};

use nasbn_targets::{deploy::DeployError, device::DeviceError, library::ProvisionError, package::PackageError};

/// Bad usage or input.
const USAGE: u8 = 2;
/// Something is not to be had.
const DEVICE: u8 = 3;

/// A failure: its error, a hint where there is one, and the exit status.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    status: u8,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let (hint, status) = if let Some(e) = error.downcast_ref::<PackageError>() {
            (Some(e.hint()), e.exit_status())
        } else if let Some(e) = error.downcast_ref::<DeployError>() {
            (Some(e.hint()), e.exit_status())
        } else if let Some(e) = error.downcast_ref::<DeviceError>() {
            (Some(e.hint().to_owned()), USAGE)
        } else if let Some(e) = error.downcast_ref::<ProvisionError>() {
            let usage = matches!(e, ProvisionError::NotPinned { .. });
            (Some(e.hint().to_owned()), if usage { USAGE } else { DEVICE })
        } else if let Some(e) = error.downcast_ref::<io::Error>() {
            let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let hint =
                if full { "make room where the output goes" } else { "see where the output of this command goes" };
            (Some(hint.to_owned()), USAGE)
        } else {
            (None, DEVICE)
        };
        Self { error, hint, status }
    }
}

impl Failure {
    /// Whether whoever reads the output went away, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
