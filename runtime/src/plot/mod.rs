//! Charts as self-contained SVG: no script, no font, no file beside them; light or dark as the reader's screen is.
//!
//! [`scatter`], [`lines`], [`bars`], [`marked`] and [`row`] give whole documents; [`inlined`] makes one a part of a page
//! that holds [`STYLE`]. They never fail: what cannot be drawn (a value that is
//! not finite) is left out, texts that are too long end in an ellipsis.

mod bars;
mod frame;
mod marked;
mod points;
mod row;
mod svg;
mod ticks;

pub use bars::{Arrangement, Bars, bars};
pub use frame::Labels;
pub use marked::{Mark, Marked, Spot, Tone, Upright, key, marked};
pub use points::{Series, lines, scatter};
pub use row::{Block, row};
pub use svg::{STYLE, distinct_colour, escape, inlined};

#[cfg(test)]
mod tests;
