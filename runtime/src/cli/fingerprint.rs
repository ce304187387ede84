//! What decides the numbers of a run, by name: the first line of its journal.

use nasbn_models::{Path, Supernet};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{args::ValidationArgs, setup::Session};
use crate::{data::Dataset, parameters::BnParameters};

/// What every run on networks depends on, and `more`, an object.
pub fn of(
    session: &Session,
    parameters: &BnParameters,
    data: Option<&Dataset>,
    validation: &ValidationArgs,
    more: Value,
) -> Map<String, Value> {
    let numbers = parameters.gamma.iter().chain(&parameters.beta);
    let numbers: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
    let common = json!({
        "nasbn": env!("CARGO_PKG_VERSION"),
        "onnxruntime": format!("1.{}", session.running.library.minor),
        "provider": session.running.backend.provider,
        "precision": session.running.backend.precision,
        "bundle": hex(&session.bundle.digest()),
        "parameters": hex(&Sha256::digest(&numbers)),
        "data": data.map(Dataset::fingerprint),
        "batch": validation.batch,
        "recalibrate": validation.recalibrate,
        "validation_images": validation.validation_images,
        "lowering": format!("{:?}", session.network.options().lowering),
    });
    let objects = [common, more].into_iter().filter_map(|value| match value {
        Value::Object(object) => Some(object),
        _ => None,
    });
    objects.flatten().collect()
}

/// Names networks, in their order.
pub fn networks(supernet: &Supernet, paths: &[Path]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| supernet.format_path(path)).collect();
    hex(&Sha256::digest(texts.join("\n")))
}

/// Lower-case hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
