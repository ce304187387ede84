//! What a space file may hold, as TOML tables. Fields whose values can be wrong carry their place.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::Deserialize;
use toml::Spanned;

use crate::supernet::TextForm;

/// A whole space file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceFile {
    pub schema: Spanned<u32>,
    pub name: String,
    pub image: Image,
    pub classes: Spanned<u32>,
    #[serde(default)]
    pub text_form: Text,
    pub divisor: Option<Spanned<u32>>,
    pub searchable: Spanned<Vec<Spanned<String>>>,
    pub operator: BTreeMap<Spanned<String>, OperatorTable>,
    #[serde(default)]
    pub cell: BTreeMap<Spanned<String>, CellTable>,
    pub layer: Vec<Spanned<LayerTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    pub channels: Spanned<u32>,
    pub size: Spanned<u32>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Text {
    #[default]
    Digits,
    Dashed,
}

impl From<Text> for TextForm {
    fn from(text: Text) -> Self {
        match text {
            Text::Digits => Self::Digits,
            Text::Dashed => Self::Dashed,
        }
    }
}

/// Kinds of operators.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Identity,
    Skip,
    None,
    InvertedResidual,
    Conv,
    ReluConvBn,
    AvgPool,
    Head,
    Layers,
}

/// An operator. One flat table for all kinds, because serde loses the places of a tagged enum's
/// fields; which fields a kind takes is checked in `operator.rs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorTable {
    pub kind: Spanned<Kind>,
    pub kernel: Option<Spanned<u8>>,
    pub expansion: Option<Spanned<u8>>,
    pub squeeze_excitation: Option<Spanned<u8>>,
    pub depthwise: Option<Spanned<bool>>,
    pub features: Option<Spanned<u32>>,
    pub layers: Option<Spanned<Vec<LayerItem>>>,
    pub residual: Option<Spanned<bool>>,
    pub timm: Option<Spanned<String>>,
}

/// Kinds of layers.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LayerKind {
    Conv,
    BatchNorm,
    Relu,
    AvgPool,
    SqueezeExcitation,
    GlobalAvgPool,
    Linear,
    ChannelShuffle,
}

/// One layer of an operator of kind `layers`; flat for the same reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerItem {
    pub layer: Spanned<LayerKind>,
    pub kernel: Option<Spanned<u8>>,
    pub width: Option<Spanned<WidthItem>>,
    pub depthwise: Option<Spanned<bool>>,
    pub groups: Option<Spanned<u32>>,
    pub strided: Option<Spanned<bool>>,
    pub divisor: Option<Spanned<u8>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WidthItem {
    #[default]
    Output,
    Same,
    Expand(u8),
    Fixed(u32),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CellTable {
    /// Tensors of the cell: its inputs first, its output last.
    pub nodes: Spanned<u16>,
    /// Inputs: 1 is the previous layer's output; with 2, node 0 is what stood before a previous cell.
    pub inputs: Option<Spanned<u16>>,
    /// Nodes that concatenate.
    #[serde(default)]
    pub concat: Vec<Spanned<u16>>,
    /// Nodes that the layer's stride comes after, besides the inputs.
    #[serde(default)]
    pub full_size: Vec<Spanned<u16>>,
    pub edge: Vec<Spanned<EdgeTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgeTable {
    pub from: u16,
    pub to: u16,
    pub operator: Option<Spanned<String>>,
    pub candidates: Option<Spanned<Vec<Spanned<String>>>>,
}

/// Channels that a layer leads to.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "`out` must be a whole number of channels or \"classes\"")]
pub(super) enum Out {
    Channels(u32),
    Word(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerTable {
    pub operator: Option<Spanned<String>>,
    pub candidates: Option<Spanned<Vec<Spanned<String>>>>,
    pub cell: Option<Spanned<String>>,
    pub out: Spanned<Out>,
    pub stride: Option<Spanned<u8>>,
    pub repeat: Option<Spanned<u32>>,
    /// Every repeat of the cell has choices of its own.
    pub own_choices: Option<Spanned<bool>>,
}
