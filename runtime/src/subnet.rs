//! One path written as a network of its own.

use std::{
    io,
    path::{Path as FsPath, PathBuf},
};

use nasbn_export::{
    bundle::read::Bundle,
    subnet::{BnSource, BnValues, SubnetError, definition, parameters, subnet},
};
use nasbn_models::Path;

use crate::{
    atomic,
    data::Normaliser,
    ort_library,
    parameters::{BnParameters, Layout, Statistics},
};

/// The files of a subnet, in memory.
pub struct SubnetFiles {
    onnx: Vec<u8>,
    safetensors: Vec<u8>,
    json: Vec<u8>,
}

/// BatchNorms of the supernet as the exporter asks for them.
struct Source<'a> {
    layout: &'a Layout,
    parameters: &'a BnParameters,
    statistics: &'a Statistics,
}

impl BnSource for Source<'_> {
    fn bn(&self, edge: usize, operator: u8, bn: u16) -> Option<BnValues<'_>> {
        let slot = self.layout.operator(edge, operator).nth(usize::from(bn))?;
        let range = self.layout.slots().get(slot)?.range.clone();
        Some(BnValues {
            gamma: &self.parameters.gamma[range.clone()],
            beta: &self.parameters.beta[range.clone()],
            mean: &self.statistics.mean[range.clone()],
            var: &self.statistics.var[range],
        })
    }
}

/// Makes the files of `path`: a standalone inference network with BatchNorm folded, its unfolded
/// parameters, and the definition with which it is trained elsewhere (a timm `arch_def` where the
/// space has one). `metadata` is added to the network's, and how its images are normalised is told in both
/// the network and the definition. What activations have left free goes back to the kernel first, as files may be as large.
///
/// # Errors
/// If the path is none of the space, or its statistics are not finite.
pub fn files(
    bundle: &Bundle,
    layout: &Layout,
    path: &Path,
    parameters_of: &BnParameters,
    statistics: &Statistics,
    input: &Normaliser,
    metadata: &[(String, String)],
) -> Result<SubnetFiles, SubnetError> {
    ort_library::trim_arena();
    let source = Source { layout, parameters: parameters_of, statistics };
    let supernet = &bundle.manifest().supernet;
    let mut description = definition(supernet, path);
    if let Some(object) = description.as_object_mut() {
        let input = serde_json::json!({
            "layout": "NCHW", "from_bytes": "(byte / 255 - mean) / std", "mean": input.mean(), "std": input.std(),
        });
        object.insert("input".into(), input);
    }
    let texts = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let normalisation = [("input_mean".to_owned(), texts(input.mean())), ("input_std".to_owned(), texts(input.std()))];
    let metadata = [&normalisation[..], metadata].concat();
    Ok(SubnetFiles {
        onnx: subnet(bundle, path, &source, &metadata)?,
        safetensors: parameters(bundle, path, &source)?,
        json: format!("{description:#}\n").into_bytes(),
    })
}

/// `path` as an ONNX model with the bundle's weights and BatchNorms that change nothing: what it computes takes as long
/// as a trained network.
///
/// # Errors
/// If the path is none of the space, or the weights cannot be read.
pub fn untrained(bundle: &Bundle, layout: &Layout, path: &Path) -> Result<Vec<u8>, SubnetError> {
    let (parameters, statistics) = (BnParameters::initial(layout), Statistics::standard(layout));
    subnet(bundle, path, &Source { layout, parameters: &parameters, statistics: &statistics }, &[])
}

impl SubnetFiles {
    /// Writes `NAME.onnx`, `NAME.safetensors`, `NAME.json` and then `others`, by their names, as `atomic::write_all` does.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub fn write(
        &self,
        directory: &FsPath,
        name: &str,
        others: &[(&str, &[u8])],
    ) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        let own = [("onnx", &self.onnx), ("safetensors", &self.safetensors), ("json", &self.json)];
        let own = own.map(|(extension, bytes)| (directory.join(format!("{name}.{extension}")), bytes.as_slice()));
        let others = others.iter().map(|(name, bytes)| (directory.join(name), *bytes));
        let all: Vec<(PathBuf, &[u8])> = own.into_iter().chain(others).collect();
        atomic::write_all(&all.iter().map(|(path, bytes)| (path.as_path(), *bytes)).collect::<Vec<_>>())?;
        Ok(all.into_iter().map(|(path, _)| path).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_result_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let of = |byte: u8| SubnetFiles { onnx: vec![byte], safetensors: vec![byte], json: vec![byte] };
        let written = of(1).write(dir.path(), "winner", &[("result.json", b"1")]).unwrap();
        assert_eq!(written.len(), 4);
        let contents = || written.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
        let before = contents();
        // The last file does not fit: its directory is not there.
        let (file, _) =
            of(2).write(dir.path(), "winner", &[("result.json", b"2"), ("no/report.html", b"2")]).unwrap_err();
        assert!(file.ends_with("no/report.html"));
        assert_eq!(contents(), before);
        of(3).write(dir.path(), "winner", &[("result.json", b"3")]).unwrap();
        assert_eq!(contents(), [[3], [3], [3], [b'3']]);
    }
}
