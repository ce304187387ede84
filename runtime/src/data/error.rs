//! What can go wrong between `--data` and a batch, in words a user can act on.

use std::fmt;
use std::path::PathBuf;

use super::source::SOURCE_FORMS;

/// How many names a message lists before it only counts.
const LISTED: usize = 5;

/// Why a data source was refused. `Display` says what, where and what would be right;
/// [`DataError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// `--data` names no known source.
    #[error("data source '{given}' is not one of {SOURCE_FORMS}: {reason}")]
    Source {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried ("read the folder").
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A folder holds nothing of what the source needs.
    #[error("{} holds no {wanted} (found {found})", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What is there instead.
        found: String,
    },
    /// A binary file is no whole number of records.
    #[error("{} has {size} bytes, which is no positive multiple of the {record}-byte record of {format}", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Bytes of one record.
        record: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A record's label is beyond the classes.
    #[error("{}, record {record} (counted from 0): label {label}, expected 0 to {}", path.display(), classes - 1)]
    Label {
        /// The file.
        path: PathBuf,
        /// Number of the record.
        record: u64,
        /// The label found.
        label: u16,
        /// Number of classes.
        classes: usize,
    },
    /// The data has another number of classes than the bundle.
    #[error("{what} has {found} classes, the bundle was built for {expected}")]
    ClassCount {
        /// The data.
        what: String,
        /// Classes in the data.
        found: usize,
        /// Classes of the bundle.
        expected: usize,
    },
    /// There is nothing to tell apart.
    #[error("{} holds one class only ('{class}'); at least two are needed", path.display())]
    OneClass {
        /// The folder.
        path: PathBuf,
        /// Its only class.
        class: String,
    },
    /// Every training image has the same label.
    #[error("the {images} training images of {origin} are all of one class, '{class}'; at least two are needed")]
    OneLabel {
        /// Where they come from.
        origin: String,
        /// Their class.
        class: String,
        /// How many there are.
        images: usize,
    },
    /// A folder `train` beside others that are neither parts nor, so it seems, classes.
    #[error("{} holds train/ beside {}, so it is neither a folder of parts nor one of classes", path.display(), Names(others))]
    Parts {
        /// The folder.
        path: PathBuf,
        /// The other folders.
        others: Vec<String>,
    },
    /// Training and validation folders disagree about the classes.
    #[error(
        "{} and {} hold different classes: only in the first: {}; only in the second: {}",
        train.display(), validation.display(), Names(only_train), Names(only_validation)
    )]
    ClassesDiffer {
        /// The training folder.
        train: PathBuf,
        /// The validation folder.
        validation: PathBuf,
        /// Classes that the validation folder lacks.
        only_train: Vec<String>,
        /// Classes that the training folder lacks.
        only_validation: Vec<String>,
    },
    /// A class cannot be split in two.
    #[error("class '{class}' has {found} images; {needed} are needed to split it into train and validation")]
    SmallClass {
        /// The class.
        class: String,
        /// Its images.
        found: usize,
        /// How many it should have.
        needed: usize,
    },
    /// Images that could not be decoded.
    #[error("{} of {total} images cannot be read: {}", files.len(), Names(files))]
    Unreadable {
        /// Each file and why.
        files: Vec<Skipped>,
        /// Images looked at.
        total: usize,
    },
    /// The data would not fit into the stated bound.
    #[error("{images} images of {image_bytes} bytes need {needed} bytes of memory, more than the bound of {bound}")]
    TooLarge {
        /// Number of images.
        images: u64,
        /// Bytes of one at the bundle's size.
        image_bytes: u64,
        /// Their product.
        needed: u64,
        /// The bound, in bytes.
        bound: u64,
    },
    /// Fewer images than asked for at once.
    #[error("the {part} part has {images} images, fewer than the {wanted} asked for ({request})")]
    TooFewImages {
        /// Which part.
        part: &'static str,
        /// Images in it.
        images: usize,
        /// Images asked for.
        wanted: usize,
        /// What asked for them ("batch of 64").
        request: String,
    },
    /// The bundle's image shape is none that images can be brought to.
    #[error("images cannot be brought to {given}: {reason}")]
    Spec {
        /// The shape asked for.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option is out of range.
    #[error("{option} is {given}; expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        given: String,
        /// What is right.
        expected: &'static str,
    },
    /// A caller-owned buffer, an index or a set of images has the wrong size.
    #[error("{what}: {found}, expected {expected}")]
    Extent {
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size that would be right.
        expected: String,
    },
    /// The digits inside the program are damaged.
    #[error("the built-in digits are damaged: {0}")]
    Digits(String),
    /// A thread that reads or prepares images ended too early.
    #[error("the data loader's thread ended before {before}")]
    LoaderStopped {
        /// What is missing ("the batch of step 7").
        before: String,
    },
}

impl DataError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Source { .. } => "for a first try, `--data digits` needs no files",
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => {
                    "check the path after the colon of --data; it is taken from the current folder"
                }
                std::io::ErrorKind::PermissionDenied => "make it readable for this user",
                _ => "check that the file system is there and readable",
            },
            Self::Missing { .. } => {
                "cifar10:DIR wants train*.bin or data_batch*.bin (and test*.bin), cifar100:DIR train.bin and test.bin, \
                 images:DIR a folder of PNG or JPEG files for each class"
            }
            Self::FileSize { .. } => {
                "use the 'binary version' of the data set; a file of another size is cut off or still compressed"
            }
            Self::Label { .. } => "is this the other CIFAR? cifar10 and cifar100 have different records",
            Self::ClassCount { .. } => "build the bundle with `nasbn-export build --classes N` for this data",
            Self::ClassesDiffer { .. } => "give both folders the same class folders",
            Self::SmallClass { .. } => "add images, remove the class, or give train/ and val/ folders",
            Self::Unreadable { .. } => "repair or remove them, or pass --skip-unreadable to go on without them",
            Self::TooLarge { .. } => "use fewer images or a bundle of smaller --image-size",
            Self::TooFewImages { .. } => "use a smaller batch or fewer batches",
            Self::LoaderStopped { .. } => "this is a fault in nasbn; --resume goes on from the last checkpoint",
            Self::OneClass { .. } => "give it a folder for each class; the names of the folders are the classes",
            Self::OneLabel { .. } => {
                "check that files are missing none of their records: losses of one class are 0 and rank nothing"
            }
            Self::Parts { .. } => {
                "call the folder of held-back images val, valid, validation or test; if train is a class, call it otherwise"
            }
            Self::Spec { .. } => "build the bundle with an --image-size and --classes that images can have",
            Self::Option { .. } => "leave the option out for its usual value",
            Self::Extent { .. } => {
                "this is a fault in nasbn or its caller: images, labels and batches do not fit together"
            }
            Self::Digits(_) => "the program was changed: build or copy it again",
        }
    }

    /// An I/O error with its place; for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.reason)
    }
}

/// The first few of a list, then a count of the rest.
struct Names<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Names<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, name) in self.0.iter().take(LISTED).enumerate() {
            write!(f, "{}{name}", if index > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (0..7).map(|i| format!("n{i}")).collect();
        assert_eq!(Names(&names).to_string(), "n0, n1, n2, n3, n4 and 2 more");
        assert_eq!(Names(&names[..2]).to_string(), "n0, n1");
        assert_eq!(Names::<String>(&[]).to_string(), "none");
    }

    #[test]
    fn messages_say_what_where_and_what_is_right() {
        let error = DataError::FileSize { path: "a/b.bin".into(), size: 10, record: 3073, format: "CIFAR-10" };
        let text = error.to_string();
        assert!(text.contains("a/b.bin") && text.contains("10 bytes") && text.contains("3073"), "{text}");
        assert!(error.hint().contains("binary version"));
    }
}
