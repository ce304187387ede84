//! Operators of a space file: which fields a kind takes, and which layers it stands for.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use toml::Spanned;

use super::{
    Problem, Scale,
    file::{Kind, LayerItem, LayerKind, OperatorTable, WidthItem},
};
use crate::{Form, Layer, Operator, Width, program::MAX_EXTENT};

/// A value that must be there, must not be zero, and its place.
fn needed<T: Copy + PartialEq + Default>(
    value: &Option<Spanned<T>>,
    field: &str,
    owner: (&str, usize),
) -> Result<T, Problem> {
    match value {
        None => Err(Problem { at: owner.1, text: format!("{} needs `{field}`", owner.0) }),
        Some(value) if *value.get_ref() == T::default() => {
            Err(Problem { at: value.span().start, text: format!("`{field}` is 0; it must be at least 1") })
        }
        Some(value) => Ok(*value.get_ref()),
    }
}

fn kernel(value: &Option<Spanned<u8>>, owner: (&str, usize)) -> Result<u8, Problem> {
    let side = needed(value, "kernel", owner)?;
    let at = value.as_ref().map_or(owner.1, |v| v.span().start);
    match side % 2 == 1 && side <= 31 {
        true => Ok(side),
        false => {
            Err(Problem { at, text: format!("a kernel of side {side} is not possible; it must be odd and at most 31") })
        }
    }
}

/// Refuses fields that are present but belong to other kinds.
fn only(allowed: &[&str], present: &[(&str, Option<usize>)], owner: &str) -> Result<(), Problem> {
    for (field, at) in present {
        if let (Some(at), false) = (at, allowed.contains(field)) {
            let takes = match allowed {
                [] => "no fields".to_string(),
                _ => allowed.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", "),
            };
            return Err(Problem { at: *at, text: format!("{owner} has no `{field}`; it takes {takes}") });
        }
    }
    Ok(())
}

fn start<T>(value: &Option<Spanned<T>>) -> Option<usize> {
    value.as_ref().map(|v| v.span().start)
}

fn flag(value: &Option<Spanned<bool>>) -> bool {
    value.as_ref().is_some_and(|v| *v.get_ref())
}

fn conv(kernel: u8, width: Width, depthwise: bool, strided: bool) -> Layer {
    Layer::Conv { kernel, width, depthwise, strided }
}

fn scaled(features: u32, at: usize, scale: &Scale) -> Result<u32, Problem> {
    let channels = scale.channels(features);
    match (1..=MAX_EXTENT).contains(&features) && channels <= MAX_EXTENT {
        true => Ok(channels),
        false => Err(Problem { at, text: format!("{features} channels are not possible; 1 to {MAX_EXTENT} are") }),
    }
}

/// The operator of a table.
pub(super) fn operator(name: &Spanned<String>, table: &OperatorTable, scale: &Scale) -> Result<Operator, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.get_ref().is_empty() || name.get_ref().len() > 64 || !name.get_ref().chars().all(plain) {
        let text =
            format!("{:?} cannot be an operator's name: 1 to 64 letters, digits, `_` or `-` can", name.get_ref());
        return Err(Problem { at: name.span().start, text });
    }
    let (kind, allowed): (&str, &[&str]) = match table.kind.get_ref() {
        Kind::Identity => ("identity", &[]),
        Kind::Skip => ("skip", &[]),
        Kind::None => ("none", &[]),
        Kind::InvertedResidual => ("inverted-residual", &["expansion", "kernel", "squeeze_excitation"]),
        Kind::Conv => ("conv", &["kernel", "depthwise"]),
        Kind::ReluConvBn => ("relu-conv-bn", &["kernel"]),
        Kind::AvgPool => ("avg-pool", &["kernel"]),
        Kind::Head => ("head", &["features"]),
        Kind::Layers => ("layers", &["layers", "residual", "timm"]),
    };
    let owner = format!("an operator of kind `{kind}`");
    let present = [
        ("kernel", start(&table.kernel)),
        ("expansion", start(&table.expansion)),
        ("squeeze_excitation", start(&table.squeeze_excitation)),
        ("depthwise", start(&table.depthwise)),
        ("features", start(&table.features)),
        ("layers", start(&table.layers)),
        ("residual", start(&table.residual)),
        ("timm", start(&table.timm)),
    ];
    only(allowed, &present, &owner)?;
    let owner = (owner.as_str(), table.kind.span().start);
    let chain = |layers| Form::Layers { layers, residual: false };
    let (form, timm) = match table.kind.get_ref() {
        Kind::Identity => (Form::Identity, None),
        // Where it is no identity, timm's block of a convolution, its BatchNorm and its ReLU.
        Kind::Skip => (Form::Skip, Some("cn_r1_k1_s{s}_c{c}".into())),
        Kind::None => (Form::Absent, None),
        Kind::InvertedResidual => inverted_residual(table, owner)?,
        Kind::Conv => {
            let kernel = kernel(&table.kernel, owner)?;
            let depthwise = flag(&table.depthwise);
            let width = if depthwise { Width::Same } else { Width::Output };
            (chain(vec![conv(kernel, width, depthwise, true), Layer::BatchNorm, Layer::Relu]), None)
        }
        Kind::ReluConvBn => {
            let kernel = kernel(&table.kernel, owner)?;
            (chain(vec![Layer::Relu, conv(kernel, Width::Output, false, true), Layer::BatchNorm]), None)
        }
        Kind::AvgPool => {
            let kernel = kernel(&table.kernel, owner)?;
            (chain(vec![Layer::AvgPool { kernel, strided: true }]), None)
        }
        Kind::Head => {
            let features = needed(&table.features, "features", owner)?;
            let features = scaled(features, start(&table.features).unwrap_or(owner.1), scale)?;
            let linear = Layer::Linear { width: Width::Output };
            let expand = conv(1, Width::Fixed(features), false, false);
            (chain(vec![expand, Layer::BatchNorm, Layer::Relu, Layer::GlobalAvgPool, linear]), None)
        }
        Kind::Layers => {
            let items = table.layers.as_ref().map(|l| l.get_ref().as_slice()).unwrap_or_default();
            if items.is_empty() {
                let text = format!("{} needs `layers`, a list of at least one layer", owner.0);
                return Err(Problem { at: start(&table.layers).unwrap_or(owner.1), text });
            }
            let layers = items.iter().map(|item| layer(item, scale)).collect::<Result<_, _>>()?;
            let timm = table.timm.as_ref().map(|t| t.get_ref().clone());
            (Form::Layers { layers, residual: flag(&table.residual) }, timm)
        }
    };
    Ok(Operator { name: name.get_ref().clone(), form, timm })
}

/// Expansion (left out where it is 1), depthwise convolution, projection: MobileNetV2's block
/// (Sandler et al. 2018), with ReLU.
fn inverted_residual(table: &OperatorTable, owner: (&str, usize)) -> Result<(Form, Option<String>), Problem> {
    let expansion = needed(&table.expansion, "expansion", owner)?;
    let kernel = kernel(&table.kernel, owner)?;
    let divisor = match &table.squeeze_excitation {
        None => None,
        value => Some(needed(value, "squeeze_excitation", owner)?),
    };
    let mut layers = Vec::new();
    if expansion != 1 {
        layers.extend([conv(1, Width::Expand(expansion), false, false), Layer::BatchNorm, Layer::Relu]);
    }
    layers.extend([conv(kernel, Width::Same, true, true), Layer::BatchNorm, Layer::Relu]);
    layers.extend(divisor.map(|divisor| Layer::SqueezeExcitation { divisor }));
    layers.extend([conv(1, Width::Output, false, false), Layer::BatchNorm]);
    let se = divisor.map_or(String::new(), |d| format!("_se{}", 1.0 / f64::from(d)));
    let timm = match expansion {
        // timm writes a block without expansion as a depthwise-separable one.
        1 => format!("ds_r1_k{kernel}_s{{s}}_c{{c}}{se}"),
        _ => format!("ir_r1_k{kernel}_s{{s}}_e{expansion}_c{{c}}{se}"),
    };
    Ok((Form::Layers { layers, residual: true }, Some(timm)))
}

fn layer(item: &LayerItem, scale: &Scale) -> Result<Layer, Problem> {
    let (name, allowed): (&str, &[&str]) = match item.layer.get_ref() {
        LayerKind::Conv => ("conv", &["kernel", "width", "depthwise", "groups", "strided"]),
        LayerKind::BatchNorm => ("batch-norm", &[]),
        LayerKind::Relu => ("relu", &[]),
        LayerKind::AvgPool => ("avg-pool", &["kernel", "strided"]),
        LayerKind::SqueezeExcitation => ("squeeze-excitation", &["divisor"]),
        LayerKind::GlobalAvgPool => ("global-avg-pool", &[]),
        LayerKind::Linear => ("linear", &["width"]),
        LayerKind::ChannelShuffle => ("channel-shuffle", &["groups"]),
    };
    let owner = format!("a layer `{name}`");
    let present = [
        ("kernel", start(&item.kernel)),
        ("width", start(&item.width)),
        ("depthwise", start(&item.depthwise)),
        ("groups", start(&item.groups)),
        ("strided", start(&item.strided)),
        ("divisor", start(&item.divisor)),
    ];
    only(allowed, &present, &owner)?;
    let owner = (owner.as_str(), item.layer.span().start);
    let strided = flag(&item.strided);
    let groups = || match item.groups {
        None => Ok(1),
        _ => needed(&item.groups, "groups", owner),
    };
    let width = || {
        Ok(match item.width.as_ref().map(|w| *w.get_ref()).unwrap_or_default() {
            WidthItem::Output => Width::Output,
            WidthItem::Same => Width::Same,
            WidthItem::Expand(times) => Width::Expand(times),
            WidthItem::Fixed(channels) => Width::Fixed(scaled(channels, start(&item.width).unwrap_or(owner.1), scale)?),
        })
    };
    Ok(match item.layer.get_ref() {
        LayerKind::Conv if flag(&item.depthwise) => {
            if !matches!(item.width.as_ref().map(Spanned::get_ref), None | Some(WidthItem::Same)) {
                let text = "a depthwise convolution keeps its channels, so its `width` is \"same\" or left out".into();
                return Err(Problem { at: start(&item.width).unwrap_or(owner.1), text });
            }
            if let Some(at) = start(&item.groups) {
                let text = "a depthwise convolution has a group for every channel, so `groups` must be left out".into();
                return Err(Problem { at, text });
            }
            conv(kernel(&item.kernel, owner)?, Width::Same, true, strided)
        }
        LayerKind::Conv if groups()? > 1 => {
            Layer::GroupedConv { kernel: kernel(&item.kernel, owner)?, width: width()?, groups: groups()?, strided }
        }
        LayerKind::Conv => conv(kernel(&item.kernel, owner)?, width()?, false, strided),
        LayerKind::BatchNorm => Layer::BatchNorm,
        LayerKind::Relu => Layer::Relu,
        LayerKind::AvgPool => Layer::AvgPool { kernel: kernel(&item.kernel, owner)?, strided },
        LayerKind::SqueezeExcitation => Layer::SqueezeExcitation { divisor: needed(&item.divisor, "divisor", owner)? },
        LayerKind::GlobalAvgPool => Layer::GlobalAvgPool,
        LayerKind::Linear => Layer::Linear { width: width()? },
        LayerKind::ChannelShuffle => Layer::ChannelShuffle { groups: needed(&item.groups, "groups", owner)? },
    })
}
