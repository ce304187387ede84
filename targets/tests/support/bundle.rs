//! A tiny bundle for tests.

use std::path::Path;

use nasbn_export::bundle::write::{BuildOptions, write};
use nasbn_models::{
    BnPlacement,
    spec::{SpaceOptions, parse},
};

const SPACE: &str = r#"
schema = 1
name = "tiny"
image = { channels = 3, size = 4 }
classes = 2
text_form = "digits"
divisor = 1
searchable = [SECOND, "identity"]

[operator.stem]
kind = "conv"
kernel = 3

[operator.identity]
kind = "identity"

[operator.SECOND]
kind = "inverted-residual"
expansion = 1
kernel = 3

[operator.head]
kind = "head"
features = 2

[[layer]]
operator = "stem"
out = 2

[[layer]]
candidates = ["identity", SECOND]
out = 2

[[layer]]
operator = "head"
out = "classes"
"#;

/// Writes a bundle whose layer has an identity and `second` to choose from, over one that is there.
pub fn build(seed: u64, second: &str, out: &Path) {
    let text = SPACE.replace("[operator.SECOND]", &format!("[operator.{second}]"));
    let text = text.replace("SECOND", &format!("{second:?}"));
    let options = SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };
    let space = parse(&text, "tiny", &options).unwrap();
    write(&space, &BuildOptions { seed, force: true, ..Default::default() }, out, &mut |_| {}).unwrap();
}
