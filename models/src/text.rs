//! Text forms of paths, both ways.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use core::fmt;

use crate::{MAX_CHOICES, Path, Supernet, supernet::TextForm};

/// Why a text is no path of the space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path of {space}: {problem}")]
pub struct PathError {
    text: String,
    space: String,
    problem: String,
    /// The nearest text that is a path.
    pub nearest: String,
}

impl PathError {
    /// What to write instead.
    pub fn hint(&self) -> Option<String> {
        Some(format!("the nearest path is {}", self.nearest))
    }
}

/// A path of a supernet.
struct PathText<'a> {
    supernet: &'a Supernet,
    path: &'a Path,
}

impl fmt::Display for PathText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { supernet, path } = self;
        let separator = if supernet.text_form == TextForm::Dashed { "-" } else { "" };
        path.choices().iter().zip(0..supernet.choices.len()).try_for_each(|(&candidate, choice)| {
            let before = if choice > 0 { separator } else { "" };
            write!(f, "{before}{}", supernet.letter(choice, candidate))
        })
    }
}

impl Supernet {
    /// The letter of a candidate: its operator's place in the alphabet.
    fn letter(&self, choice: usize, candidate: u8) -> usize {
        let operator = self.choices[choice].candidates.get(usize::from(candidate));
        operator.and_then(|o| self.alphabet.iter().position(|a| a == o)).unwrap_or(0)
    }

    /// Text form of a path.
    pub fn format_path(&self, path: &Path) -> String {
        self.path_text(path).to_string()
    }

    /// Text form of a path, to be shown: it asks the allocator for nothing.
    pub fn path_text<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        PathText { supernet: self, path }
    }

    /// A path from its text form.
    ///
    /// # Errors
    /// If a letter is no operator of its layer, or there are too few or too many; the error names the
    /// nearest path.
    pub fn parse_path(&self, text: &str) -> Result<Path, PathError> {
        let text = text.trim();
        let letters: Vec<String> = match self.text_form {
            TextForm::Digits => text.chars().map(String::from).collect(),
            TextForm::Dashed => text.split('-').map(String::from).collect(),
        };
        let mut problem = None;
        let mut choices = Vec::new();
        for (i, choice) in self.choices.iter().enumerate().take(MAX_CHOICES) {
            let wanted = letters.get(i).and_then(|l| l.parse::<usize>().ok());
            // Compared as text: `01` and `+1` are no letters.
            let exact = (0..choice.candidates.len())
                .find(|&c| letters.get(i).is_some_and(|letter| *letter == self.letter(i, c as u8).to_string()));
            let candidate = exact.unwrap_or_else(|| {
                if letters.len() == self.choices.len() && problem.is_none() {
                    let allowed: Vec<String> =
                        (0..choice.candidates.len()).map(|c| self.letter(i, c as u8).to_string()).collect();
                    problem = Some(format!(
                        "position {} ({}, counted from 0) is `{}`, but takes {}",
                        i + 1,
                        choice.name,
                        letters[i],
                        allowed.join(", ")
                    ));
                }
                let distance = |c: usize| self.letter(i, c as u8).abs_diff(wanted.unwrap_or(0));
                (0..choice.candidates.len()).min_by_key(|&c| distance(c)).unwrap_or(0)
            });
            choices.push(candidate as u8);
        }
        let path = Path::new(&choices).unwrap_or_default();
        if letters.len() != self.choices.len() {
            problem = Some(format!("it has {} layers instead of {}", letters.len(), self.choices.len()));
        }
        match problem {
            None => Ok(path),
            Some(problem) => {
                let text = text.chars().take(200).collect();
                Err(PathError { text, space: self.name.clone(), problem, nearest: self.format_path(&path) })
            }
        }
    }
}
