//! Space files: what they become, and what is said about bad ones.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use nasbn_models::{
    BnPlacement, Combine, Form, Primitive, Selection, Shape, Supernet,
    cost::CostTable,
    spec::{self, SpaceOptions, SpecError},
    supernet::TextForm,
};

const OPTIONS: SpaceOptions =
    SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };
const TINY: &str = include_str!("fixtures/tiny-cell.toml");
const TWO_INPUTS: &str = include_str!("fixtures/two-inputs.toml");

fn read(text: &str, options: &SpaceOptions) -> Supernet {
    spec::parse(text, "test.toml", options).unwrap()
}

fn mobilenet(options: &SpaceOptions) -> Supernet {
    read(spec::builtin("mobilenet").unwrap(), options)
}

#[test]
fn mobilenet_is_the_space_of_bn_nas() {
    let space = mobilenet(&OPTIONS);
    assert_eq!((space.image(), space.classes()), (Shape::new(3, 224, 224), 1000));
    assert_eq!(space.choices.len(), 21);
    let stages = [(24, 112, 56), (40, 56, 28), (80, 28, 14), (96, 14, 14), (192, 14, 7)];
    let mixed: Vec<_> = space.edges.iter().filter(|e| matches!(e.selection, Selection::Mixed(_))).collect();
    for (i, &(channels, before, after)) in stages.iter().enumerate() {
        for layer in 0..4 {
            let edge = mixed[4 * i + layer];
            let side = |node: u16| space.nodes[usize::from(node)].shape.width;
            let first = layer == 0;
            assert_eq!((edge.channels, side(edge.to)), (channels, after));
            assert_eq!(side(edge.from), if first { before } else { after });
            assert_eq!(space.candidates(edge).len(), if first { 6 } else { 7 });
        }
    }
    assert_eq!((mixed[20].channels, mixed[20].stride, space.candidates(mixed[20]).len()), (320, 1, 6));
    // Six blocks in the six layers that change shapes, identity too in the other fifteen.
    assert_eq!(space.path_count(), 6u128.pow(6) * 7u128.pow(15));
}

#[test]
fn blocks_have_timm_templates() {
    let space = mobilenet(&OPTIONS);
    let timm = |space: &Supernet, name: &str| space.operators.iter().find(|o| o.name == name).unwrap().timm.clone();
    assert_eq!(timm(&space, "mb6k5").as_deref(), Some("ir_r1_k5_s{s}_e6_c{c}"));
    assert_eq!(timm(&space, "mb1k3").as_deref(), Some("ds_r1_k3_s{s}_c{c}"));
    assert_eq!(timm(&space, "identity"), None);
    assert_eq!(timm(&read(TINY, &OPTIONS), "squeezed").as_deref(), Some("ir_r1_k3_s{s}_e2_c{c}_se0.25"));
}

#[test]
fn width_scales_all_channels_but_the_images_and_the_classes() {
    let options = SpaceOptions { image_size: Some(64), classes: Some(7), width: 0.5, ..OPTIONS };
    let space = mobilenet(&options);
    let channels = |node: usize| space.nodes[node].shape.channels;
    // Multiples of 8, at least 8: 3, 32, 16, 24 become 3, 16, 8, 16 (12 is as near to 8, and rounds up).
    assert_eq!([0, 1, 2, 3].map(channels), [3, 16, 8, 16]);
    assert_eq!((space.classes(), space.width_permille), (7, 500));
    let head = space.edges.len() - 1;
    let Selection::Fixed(operator) = space.edges[head].selection else { panic!("the head is fixed") };
    assert_eq!(space.program(head, operator).unwrap().steps[1].shape, Shape::new(640, 2, 2));
    let narrow = mobilenet(&SpaceOptions { width: 0.01, ..options });
    assert!(narrow.nodes[1..narrow.nodes.len() - 1].iter().all(|n| n.shape.channels == 8));
}

#[test]
fn cells_with_two_inputs_reach_over_the_previous_cell() {
    let space = read(TWO_INPUTS, &OPTIONS);
    // Stem 1; cells of five nodes each: 2-6, 7-11 (stride 2), 12-16, 17-21.
    let pre: Vec<_> = space.edges.iter().filter(|e| [2, 3, 7, 8, 12, 13, 17, 18].contains(&e.to)).collect();
    let links: Vec<_> = pre.iter().map(|e| (e.from, e.to, e.stride)).collect();
    let expected = [(1, 2, 1), (1, 3, 1), (1, 7, 1), (6, 8, 1), (6, 12, 2), (11, 13, 1), (11, 17, 1), (16, 18, 1)];
    assert_eq!(links, expected);
    let shape = |node: usize| space.nodes[node].shape;
    assert_eq!(
        [6, 7, 9, 11, 12].map(shape),
        [Shape::new(8, 9, 9), Shape::new(8, 9, 9), Shape::new(8, 5, 5), Shape::new(16, 5, 5), Shape::new(8, 5, 5),]
    );
    assert_eq!(space.nodes[21].combine, Combine::Concat);
    // Four choices shared by three cells, and four of the last layer's own.
    let sharing = |choice| space.edges.iter().filter(|e| e.selection == Selection::Mixed(choice)).count();
    assert_eq!((0..8).map(sharing).collect::<Vec<_>>(), [3, 3, 3, 3, 1, 1, 1, 1]);
    assert_eq!(space.choices[0].name, "any 2->4");
    assert_eq!(space.choices[4].name, "node 17, any 2->4");
    assert!(CostTable::new(&space).cost(&space.parse_path("22112211").unwrap()).macs > 0);
}

#[test]
fn operators_are_what_their_kinds_say() {
    let text =
        TINY.replace("[operator.reduce]\nkind = \"conv\"", "[operator.reduce]\nkind = \"conv\"\ndepthwise = true");
    let text = text.replace("out = 12", "out = 8");
    let space = read(&text, &OPTIONS);
    let (e, edge) = space.edges.iter().enumerate().find(|(_, e)| e.stride == 2).unwrap();
    let program = space.program(e, space.candidates(edge)[0]).unwrap();
    assert_eq!(program.steps[1].primitive, Primitive::Conv { kernel: 3, stride: 2, groups: 8, bias: false });
    let form = |name: &str| &space.operators.iter().find(|o| o.name == name).unwrap().form;
    assert_eq!((form("none"), form("skip")), (&Form::Absent, &Form::Identity));
}

#[test]
fn more_than_ten_operators_are_written_with_dashes() {
    let names: Vec<String> = (0..12).map(|i| format!("\"c{i}\"")).collect();
    let operators: String =
        (0..12).map(|i| format!("[operator.c{i}]\nkind = \"conv\"\nkernel = {}\n", 2 * i + 1)).collect();
    let text = |form: &str| {
        format!(
            "schema = 1\nname = \"many\"\nimage = {{ channels = 3, size = 4 }}\nclasses = 2\ntext_form = {form:?}\n\
             searchable = [{0}]\n{operators}[operator.head]\nkind = \"head\"\nfeatures = 8\n\
             [[layer]]\ncandidates = [{0}]\nout = 8\nrepeat = 3\n[[layer]]\noperator = \"head\"\nout = \"classes\"\n",
            names.join(", ")
        )
    };
    let space = read(&text("dashed"), &OPTIONS);
    assert_eq!(space.text_form, TextForm::Dashed);
    let path = space.parse_path("11-0-10").unwrap();
    assert_eq!((path.choices(), space.format_path(&path).as_str()), (&[11, 0, 10][..], "11-0-10"));
    for (wrong, nearest) in [("11-0", "11-0-0"), ("12-0-1", "11-0-1"), ("+1-0-1", "1-0-1"), ("01-0-1", "1-0-1")] {
        assert_eq!(space.parse_path(wrong).unwrap_err().nearest, nearest, "{wrong}");
    }
    let error = spec::parse(&text("digits"), "many.toml", &OPTIONS).unwrap_err();
    assert_eq!((error.line, error.problem.contains("dashed")), (6, true), "{error}");
}

/// The error of a text in which `from` became `to`; it must name the line of the change.
fn mistake(text: &str, from: &str, to: &str, words: &str) -> SpecError {
    assert!(text.contains(from), "{from}");
    let line = text[..text.find(from).unwrap()].matches('\n').count() + 1;
    let error = spec::parse(&text.replacen(from, to, 1), "my.toml", &OPTIONS).unwrap_err();
    assert!(error.problem.contains(words), "{to:?}: {error}");
    assert_eq!(error.line, line, "{to:?}: {error}");
    assert!(error.to_string().starts_with(&format!("my.toml:{line}:")) && error.hint().is_some());
    error
}

#[test]
fn mistakes_get_their_line_and_what_was_expected() {
    for (from, to, words) in [
        ("schema = 1", "schema = 9", "reads schema 1"),
        ("schema = 1", "schema == 1", "extra `=`"),
        ("text_form = \"digits\"", "text_form = \"digit\"", "expected `digits` or `dashed`"),
        ("size = 8", "size = 0", "1 to 4096"),
        ("size = 8", "size = 4097", "an image size of 4097 is not possible; 1 to 4096 is"),
        ("channels = 3", "channels = 2", "1 (grey) or 3"),
        ("classes = 10", "classes = 1", "a number of classes of 1 is not possible; 2 to 65535 is"),
        ("classes = 10", "classes = 65536", "2 to 65535"),
        ("size = 8", "size = -8", "invalid value"),
        ("classes = 10", "classes = 0", "2 to 65535"),
        ("divisor = 4", "divisor = 0", "1 to 65536"),
        ("searchable = [\"none\"", "searchable = [1", "expected a string"),
        ("searchable = [\"none\"", "searchable = [\"skip\"", "listed twice"),
        ("kind = \"none\"", "kind = \"non\"", "`relu-conv-bn`"),
        ("kernel = 3", "kernle = 3", "unknown field `kernle`, expected one of `kind`, `kernel`"),
        ("kernel = 3", "kernel = 4", "odd and at most 31"),
        ("kernel = 3", "kernel = \"3\"", "expected u8"),
        ("kind = \"none\"", "kind = \"conv\"", "an operator of kind `conv` needs `kernel`"),
        ("expansion = 2", "features = 2", "it takes `expansion`, `kernel`, `squeeze_excitation`"),
        ("squeeze_excitation = 4", "squeeze_excitation = 0", "at least 1"),
        ("features = 32", "features = 0", "at least 1"),
        ("[operator.squeezed]", "[operator.\"a b\"]", "letters, digits"),
        ("nodes = 4", "nodez = 4", "expected one of `nodes`"),
        ("nodes = 4", "nodes = 5", "no edge leads to node 4"),
        ("nodes = 4", "nodes = 1", "more than inputs"),
        ("{ from = 0, to = 1, candidates", "{ from = 1, to = 1, candidates", "a later node, 1 to 3"),
        ("{ from = 1, to = 3, operator = \"skip\" }", "{ from = 1, to = 3 }", "exactly one of"),
        ("concat = [3]", "concat = [4]", "not one of 1 to 3"),
        ("candidates = [\"none\", \"conv3\"]", "candidates = []", "at least one operator"),
        ("candidates = [\"none\", \"conv3\"]", "candidates = [\"none\", \"none\"]", "twice"),
        ("candidates = [\"none\", \"conv3\"]", "candidates = [\"none\", \"stem\"]", "`searchable` must list it"),
        ("operator = \"reduce\"", "operator = \"redcue\"", "defined are conv3, head, none, pool3, reduce"),
        ("cell = \"joined\"", "cell = \"joind\"", "defined are joined, normal"),
        ("stride = 2", "stride = 9", "1 to 8"),
        ("stride = 2", "repeat = 0", "1 to 1024"),
        ("stride = 2", "own_choices = true", "layers with a `cell`"),
        ("out = 8", "out = 0", "1 to 65536"),
        ("out = 8", "out = 8.5", "whole number of channels or \"classes\""),
        ("out = \"classes\"", "out = \"class\"", "\"classes\""),
        ("[[layer]]\noperator = \"stem\"", "[[layer]]\noperator = \"pool3\"", "does not fit: the layers end in 3x8x8"),
        ("[[layer]]\noperator = \"head\"", "[[layer]]\noperator = \"reduce\"", "the last layer must have"),
        ("[[layer]]\noperator = \"head\"", "[[layer]]\ncandidates = [\"conv3\"]", "the last layer must have"),
    ] {
        mistake(TINY, from, to, words);
    }
    for (from, to, words) in [
        ("inputs = 2", "inputs = 3", "1 or 2 inputs"),
        ("full_size = [2, 3]", "full_size = [1]", "after the inputs"),
        ("{ layer = \"relu\" },", "{ layer = \"relu\", kernel = 3 },", "it takes no fields"),
        ("{ layer = \"conv\", kernel = 1 },", "{ layer = \"conv\" },", "needs `kernel`"),
        ("depthwise = true", "depthwise = true, width = \"output\"", "keeps its channels"),
    ] {
        mistake(TWO_INPUTS, from, to, words);
    }
}

#[test]
fn what_no_line_can_be_blamed_for_is_said_too() {
    assert!(spec::parse("", "x", &OPTIONS).unwrap_err().problem.contains("missing field"));
    for width in [f64::NAN, 0.0, -1.0, 17.0, f64::INFINITY] {
        let error = spec::parse(TINY, "x", &SpaceOptions { width, ..OPTIONS }).unwrap_err();
        assert!(error.problem.contains("above 0 and at most 16"), "{error}");
    }
    for (size, classes, words) in [
        (Some(0), None, "an image size of 0 was asked for and is not possible; 1 to 4096 is"),
        (Some(65536), None, "an image size of 65536 was asked for"),
        (None, Some(1), "a number of classes of 1 was asked for and is not possible; 2 to 65535 is"),
    ] {
        let options = SpaceOptions { image_size: size, classes, ..OPTIONS };
        let error = spec::parse(TINY, "x", &options).unwrap_err();
        assert!(error.problem.contains(words), "{error}");
    }
}
