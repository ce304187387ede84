//! Why no device is found.

/// Why no device is found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// None has that name.
    #[error("there is no device `{name}`{}", suggestion(nearest.as_deref()))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The name that is most like it, if any is.
        nearest: Option<String>,
    },
    /// The device does not run that JetPack.
    #[error("no JetPack {version} is known for {device}; it runs {known}")]
    Jetpack {
        /// What was asked for.
        version: String,
        /// The device.
        device: String,
        /// What it runs.
        known: String,
    },
}

impl DeviceError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "`nasbn-targets list` names them all; what stands in /proc/device-tree/model of a board will do, too"
            }
            Self::Jetpack { .. } => {
                "name the release next to it, or leave --jetpack out for a package that runs on all of them"
            }
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; is it `{name}`?")).unwrap_or_default()
}
