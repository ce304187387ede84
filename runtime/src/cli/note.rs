//! What a journal notes besides its rows: the composite, so that a run that goes on does not measure it again.

use super::fingerprint;
use crate::composite::Composite;

/// Name of the note of a composite.
pub const COMPOSITE: &str = "composite";

/// A composite as text, to the bit.
pub fn encode(composite: &Composite) -> String {
    fingerprint::hex(&postcard::to_allocvec(composite).unwrap_or_default())
}

/// A composite from its text; none if it is not one.
pub fn decode(text: &str) -> Option<Composite> {
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = digits.map(byte).collect::<Option<_>>()?;
    postcard::from_bytes(&bytes).ok()
}
