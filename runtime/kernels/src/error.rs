//! What the kernels refuse, and why.

/// A request that a kernel cannot carry out. Nothing has been written when it is returned, unless it is
/// [`KernelError::Pool`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A tensor has another shape than its operator needs.
    #[error("{operator}: input `{tensor}` has shape {found:?}, expected {expected}")]
    Shape {
        /// The operator's name.
        operator: &'static str,
        /// The tensor's name in the operator's contract.
        tensor: &'static str,
        /// The shape that was handed in.
        found: Vec<i64>,
        /// The shape in words or symbols, e.g. `[N,H,W,C]`.
        expected: String,
    },
    /// A slice does not hold as many values as its shape says.
    #[error("{operator}: `{tensor}` holds {found} values, expected {expected}")]
    Length {
        /// The operator's name.
        operator: &'static str,
        /// The tensor's name in the operator's contract.
        tensor: &'static str,
        /// Number of values handed in.
        found: usize,
        /// Number of values needed.
        expected: usize,
    },
    /// A dimension is zero: there is nothing to take a mean over.
    #[error("{operator}: empty tensor [{batch},{height},{width},{channels}]")]
    Empty {
        /// The operator's name.
        operator: &'static str,
        /// N.
        batch: usize,
        /// H.
        height: usize,
        /// W.
        width: usize,
        /// C.
        channels: usize,
    },
    /// An attribute is missing or outside its range.
    #[error("{operator}: attribute `{attribute}` is {found}, expected {expected}")]
    Attribute {
        /// The operator's name.
        operator: &'static str,
        /// The attribute's name.
        attribute: &'static str,
        /// What was found.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A required tensor was not given.
    #[error("{operator}: `{tensor}` is missing or is no float32 tensor")]
    Missing {
        /// The operator's name.
        operator: &'static str,
        /// The tensor's name in the operator's contract.
        tensor: &'static str,
    },
    /// The thread pool refused the work.
    #[error("the thread pool failed: {0}")]
    Pool(String),
}

impl KernelError {
    /// What the user can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Empty { .. } => Some("hand in at least one sample"),
            Self::Attribute { .. } | Self::Shape { .. } | Self::Missing { .. } => {
                Some("export the bundle again with the nasbn-export of this version")
            }
            Self::Length { .. } | Self::Pool(_) => None,
        }
    }
}
