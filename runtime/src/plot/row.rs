//! A network as a row of blocks, in the order in which an image goes through them.

use super::svg::{Anchor, Svg, escape, fitted};

/// A block of a network.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its operator.
    pub name: String,
    /// What its height is; one that is not finite, or 0, is drawn thin.
    pub value: f64,
    /// The value as text, above it; none if empty.
    pub shown: String,
    /// Its colour: `#rrggbb`.
    pub colour: String,
    /// What is said where a pointer rests on it.
    pub says: String,
}

/// Room of a block, pixels; of one that does nothing.
const SLOT: f64 = 42.0;
const THIN_SLOT: f64 = 24.0;
const TALLEST: f64 = 120.0;
const TOP: f64 = 24.0;
const LABELS: f64 = 78.0;
const SIDE: f64 = 56.0;

/// The row; heights are in proportion to the values. As wide as it takes.
pub fn row(title: &str, description: &str, blocks: &[Block]) -> String {
    let thin = |block: &Block| !(block.value.is_finite() && block.value > 0.0);
    let slots: f64 = blocks.iter().map(|block| if thin(block) { THIN_SLOT } else { SLOT }).sum();
    let (width, height) = (SIDE + slots + 20.0, TOP + TALLEST + LABELS);
    let mut svg = Svg::new(width.ceil(), height, title, description);
    let largest = blocks.iter().filter(|b| !thin(b)).map(|b| b.value).fold(0.0, f64::max);
    let middle = TOP + TALLEST / 2.0;
    svg.line("axis", (SIDE - 14.0, middle), (width - 12.0, middle));
    let (tip, up, down) = (width - 5.0, middle - 4.0, middle + 4.0);
    let back = width - 13.0;
    svg.element(format_args!(
        "<polygon class=\"faint\" fill=\"currentColor\" points=\"{back:.1},{up:.1} {tip:.1},{middle:.1} {back:.1},{down:.1}\"/>"
    ));
    let mut left = SIDE;
    for block in blocks {
        let (slot, thickness) = if thin(block) { (THIN_SLOT, 6.0) } else { (SLOT, SLOT - 8.0) };
        let share = if thin(block) { 0.12 } else { block.value / largest };
        let tall = (TALLEST * share).max(3.0);
        let (x, y) = (left + (slot - thickness) / 2.0, middle - tall / 2.0);
        let (colour, says) = (escape(&block.colour), escape(&block.says));
        svg.element(format_args!(
            "<g><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{thickness:.1}\" height=\"{tall:.1}\" rx=\"3\" \
             fill=\"{colour}\"/><title>{says}</title></g>"
        ));
        let centre = left + slot / 2.0;
        if !block.shown.is_empty() {
            svg.label((centre, y - 5.0), Anchor::Middle, "value", &block.shown);
        }
        svg.turned((centre + 5.0, TOP + TALLEST + 14.0), -50.0, Anchor::End, &fitted(&block.name, 12.0, 88.0));
        left += slot;
    }
    svg.finish()
}
