//! From the tables of a space file to a supernet.

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use core::ops::RangeInclusive;
use toml::Spanned;

use super::{
    Problem, Scale, SpaceOptions,
    file::{LayerTable, Out, SpaceFile, Text},
    operator::operator,
};
use crate::{
    Choice, Combine, Edge, Form, Layer, Node, Operator, Selection, Shape, Supernet,
    program::{MAX_EXTENT, ProgramError},
    supernet::{IMAGE_CHANNELS, MAX_CLASSES, MAX_IMAGE_SIDE, MIN_CLASSES, SupernetError},
};

/// Largest factor of channels.
const MAX_WIDTH: f64 = 16.0;
const MAX_REPEAT: u32 = 1024;

/// The supernet of a file, checked.
pub(super) fn build(file: &SpaceFile, options: &SpaceOptions) -> Result<Supernet, Problem> {
    if *file.schema.get_ref() != 1 {
        let text = format!("schema {} is not known; this program reads schema 1", file.schema.get_ref());
        return Err(Problem { at: file.schema.span().start, text });
    }
    if !(options.width.is_finite() && options.width > 0.0 && options.width <= MAX_WIDTH) {
        let text = format!("a width of {} is not possible; above 0 and at most {MAX_WIDTH} is", options.width);
        return Err(Problem { at: 0, text });
    }
    let scale = Scale {
        width: options.width,
        divisor: file.divisor.as_ref().map_or(Ok(8), |d| extent(*d.get_ref(), d, "a divisor"))?,
    };
    let image = &file.image;
    let size = chosen(options.image_size, &image.size, 1..=MAX_IMAGE_SIDE, "an image size")?;
    let channels = *image.channels.get_ref();
    if !IMAGE_CHANNELS.contains(&channels) {
        let text = format!("{channels} image channels are not possible; 1 (grey) or 3 (red, green, blue) are");
        return Err(Problem { at: image.channels.span().start, text });
    }
    let classes = chosen(options.classes, &file.classes, MIN_CLASSES..=MAX_CLASSES, "a number of classes")?;
    let mut operators = Vec::new();
    let mut index = BTreeMap::new();
    for (name, table) in &file.operator {
        if operators.len() >= 255 {
            return Err(Problem { at: name.span().start, text: "more than 255 operators".into() });
        }
        index.insert(name.get_ref().as_str(), operators.len() as u8);
        operators.push(operator(name, table, &scale)?);
    }
    let mut builder = Builder {
        file,
        scale,
        index,
        operators,
        nodes: vec![Node { shape: Shape::new(channels, size, size), combine: Combine::Sum }],
        edges: Vec::new(),
        places: Vec::new(),
        choices: Vec::new(),
        shared: BTreeMap::new(),
        before: None,
        classes,
    };
    let alphabet = builder.alphabet()?;
    for layer in &file.layer {
        builder.layer(layer)?;
    }
    if builder.nodes.last().map(|n| n.shape) != Some(Shape::new(classes, 1, 1)) {
        let at = file.layer.last().map_or(file.searchable.span().start, |l| l.span().start);
        let text = "the last layer must have `out = \"classes\"` and an operator that ends in one pixel, \
                    such as kind `head`"
            .into();
        return Err(Problem { at, text });
    }
    let Builder { operators, nodes, edges, choices, places, .. } = builder;
    let supernet = Supernet {
        name: file.name.clone(),
        placement: options.placement,
        width_permille: (options.width * 1000.0 + 0.5) as u32,
        nodes,
        edges,
        choices,
        operators,
        alphabet,
        text_form: file.text_form.into(),
    };
    supernet.validate().map_err(|error| misfit(file, &places, error))?;
    Ok(supernet)
}

/// Finds the place of what does not fit: the operator if it can fit nowhere, else the layer or edge.
fn misfit(file: &SpaceFile, places: &[usize], error: SupernetError) -> Problem {
    let text = format!("{error}");
    match error {
        SupernetError::Structure { .. } => Problem { at: 0, text },
        SupernetError::Operator { edge, operator, source } => {
            let defined = file.operator.keys().find(|name| *name.get_ref() == operator);
            let at = match source {
                ProgramError::OutputShape { .. } | ProgramError::LinearInput(_) | ProgramError::Groups { .. } => {
                    places.get(edge).copied()
                }
                _ => defined.map(|name| name.span().start),
            };
            Problem { at: at.unwrap_or(0), text: format!("operator `{operator}` does not fit: {source}") }
        }
    }
}

/// The value that was asked for or else the file's; within `range`.
fn chosen(asked: Option<u32>, own: &Spanned<u32>, range: RangeInclusive<u32>, what: &str) -> Result<u32, Problem> {
    let value = asked.unwrap_or(*own.get_ref());
    if range.contains(&value) {
        return Ok(value);
    }
    let whose = if asked.is_some() { "was asked for and " } else { "" };
    let text = format!("{what} of {value} {whose}is not possible; {} to {} is", range.start(), range.end());
    Err(Problem { at: own.span().start, text })
}

fn extent<T>(value: u32, place: &Spanned<T>, what: &str) -> Result<u32, Problem> {
    match (1..=MAX_EXTENT).contains(&value) {
        true => Ok(value),
        false => {
            let text = format!("{what} of {value} is not possible; 1 to {MAX_EXTENT} is");
            Err(Problem { at: place.span().start, text })
        }
    }
}

pub(super) struct Builder<'a> {
    pub file: &'a SpaceFile,
    scale: Scale,
    index: BTreeMap<&'a str, u8>,
    operators: Vec<Operator>,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// Where in the file each edge comes from.
    pub places: Vec<usize>,
    choices: Vec<Choice>,
    /// Choices of the edges of cells, shared by all repeats of a cell.
    pub shared: BTreeMap<(&'a str, usize), u8>,
    /// Input node and stride of the previous layer, if that was a cell.
    pub before: Option<(u16, u8)>,
    classes: u32,
}

impl<'a> Builder<'a> {
    fn alphabet(&self) -> Result<Vec<u8>, Problem> {
        let names = self.file.searchable.get_ref();
        let mut alphabet = Vec::new();
        for name in names {
            let id = self.operator(name)?;
            if alphabet.contains(&id) {
                return Err(Problem { at: name.span().start, text: format!("`{}` is listed twice", name.get_ref()) });
            }
            alphabet.push(id);
        }
        if matches!(self.file.text_form, Text::Digits) && names.len() > 10 {
            let text = format!("{} searchable operators need `text_form = \"dashed\"`; digits count ten", names.len());
            return Err(Problem { at: self.file.searchable.span().start, text });
        }
        Ok(alphabet)
    }

    pub fn operator(&self, name: &Spanned<String>) -> Result<u8, Problem> {
        self.index.get(name.get_ref().as_str()).copied().ok_or_else(|| {
            let known: Vec<&str> = self.index.keys().copied().collect();
            let text = format!("there is no operator `{}`; defined are {}", name.get_ref(), known.join(", "));
            Problem { at: name.span().start, text }
        })
    }

    pub fn choice(&mut self, name: String, candidates: &Spanned<Vec<Spanned<String>>>) -> Result<u8, Problem> {
        let at = candidates.span().start;
        if self.choices.len() >= crate::MAX_CHOICES {
            return Err(Problem { at, text: format!("more than {} choices", crate::MAX_CHOICES) });
        }
        if candidates.get_ref().is_empty() {
            return Err(Problem { at, text: "`candidates` is empty; it needs at least one operator".into() });
        }
        let mut ids = Vec::new();
        for candidate in candidates.get_ref() {
            let at = candidate.span().start;
            let id = self.operator(candidate)?;
            if !self.file.searchable.get_ref().iter().any(|s| s.get_ref() == candidate.get_ref()) {
                let text = format!("`{}` is a candidate, so `searchable` must list it", candidate.get_ref());
                return Err(Problem { at, text });
            }
            if ids.contains(&id) {
                return Err(Problem { at, text: format!("`{}` is a candidate twice", candidate.get_ref()) });
            }
            ids.push(id);
        }
        self.choices.push(Choice { name, candidates: ids });
        Ok((self.choices.len() - 1) as u8)
    }

    fn channels(&self, out: &Spanned<Out>) -> Result<u32, Problem> {
        match out.get_ref() {
            Out::Channels(channels) => {
                extent(*channels, out, "a number of channels")?;
                extent(self.scale.channels(*channels), out, "a scaled number of channels")
            }
            Out::Word(word) if word == "classes" => Ok(self.classes),
            Out::Word(word) => {
                let text = format!("`out` is a number of channels or \"classes\", not {word:?}");
                Err(Problem { at: out.span().start, text })
            }
        }
    }

    /// The newest node and its shape.
    pub fn last(&self) -> (u16, Shape) {
        let shape = self.nodes.last().map_or(Shape::new(1, 1, 1), |n| n.shape);
        (self.nodes.len().saturating_sub(1) as u16, shape)
    }

    fn layer(&mut self, layer: &'a Spanned<LayerTable>) -> Result<(), Problem> {
        let at = layer.span().start;
        let table = layer.get_ref();
        let channels = self.channels(&table.out)?;
        let stride = table.stride.as_ref().map_or(1, |s| *s.get_ref());
        if let (Some(place), false) = (&table.stride, (1..=8).contains(&stride)) {
            let text = format!("a stride of {stride} is not possible; 1 to 8 is");
            return Err(Problem { at: place.span().start, text });
        }
        let repeats = table.repeat.as_ref().map_or(1, |r| *r.get_ref());
        if let (Some(place), false) = (&table.repeat, (1..=MAX_REPEAT).contains(&repeats)) {
            let text = format!("{repeats} repeats are not possible; 1 to {MAX_REPEAT} are");
            return Err(Problem { at: place.span().start, text });
        }
        if let (Some(own), None) = (&table.own_choices, &table.cell) {
            return Err(Problem { at: own.span().start, text: "`own_choices` is for layers with a `cell`".into() });
        }
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            match (&table.operator, &table.candidates, &table.cell) {
                (Some(operator), None, None) => {
                    let id = self.operator(operator)?;
                    let collapse = self.collapses(id);
                    self.chain(Selection::Fixed(id), channels, stride, collapse, at);
                }
                (None, Some(candidates), None) => {
                    let name = format!("layer {}", self.choices.len());
                    let choice = self.choice(name, candidates)?;
                    self.chain(Selection::Mixed(choice), channels, stride, false, at);
                }
                (None, None, Some(cell)) => {
                    let own = table.own_choices.as_ref().is_some_and(|own| *own.get_ref());
                    self.cell(cell, channels, stride, own)?;
                }
                _ => {
                    let text = "a layer has exactly one of `operator`, `candidates` and `cell`".into();
                    return Err(Problem { at, text });
                }
            }
            if self.edges.len() > crate::supernet::MAX_PARTS {
                let text = format!("the space has more than {} edges here", crate::supernet::MAX_PARTS);
                return Err(Problem { at, text });
            }
        }
        Ok(())
    }

    /// Whether an operator ends in a vector.
    fn collapses(&self, operator: u8) -> bool {
        let vector = |l: &Layer| matches!(l, Layer::GlobalAvgPool | Layer::Linear { .. });
        matches!(&self.operators[usize::from(operator)].form, Form::Layers { layers, .. } if layers.iter().any(vector))
    }

    fn chain(&mut self, selection: Selection, channels: u32, stride: u8, collapse: bool, at: usize) {
        let (from, input) = self.last();
        let shape = if collapse { Shape::new(channels, 1, 1) } else { strided(input, channels, stride) };
        self.nodes.push(Node { shape, combine: Combine::Sum });
        self.edges.push(Edge { from, to: from + 1, stride, channels, selection });
        self.places.push(at);
        self.before = None;
    }
}

/// Shape after a layer with a stride.
pub(super) fn strided(input: Shape, channels: u32, stride: u8) -> Shape {
    let stride = u32::from(stride.max(1));
    Shape::new(channels, input.height.div_ceil(stride), input.width.div_ceil(stride))
}
