//! Charts as self-contained SVG: no script, no font, no file beside them; light or dark as the reader's screen is.
//!
//! [`scatter`], [`lines`] and [`bars`] give whole documents. They never fail: what cannot be drawn (a value that is
//! not finite) is left out, texts that are too long end in an ellipsis.

mod bars;
mod frame;
mod points;
mod svg;
mod ticks;

pub use bars::{Arrangement, Bars, bars};
pub use frame::Labels;
pub use points::{Series, lines, scatter};

#[cfg(test)]
mod tests;
