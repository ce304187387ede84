#![allow(clippy::unwrap_used)]

use nasbn_models::{BnPlacement, Path, Supernet};
use prost::Message;

use super::*;
use crate::{
    bundle::{
        Bundle,
        write::{BuildOptions, write},
    },
    onnx::proto::{GraphProto, ModelProto},
    testing::{cell, tiny},
};

/// The same values for every BatchNorm, as many as any has channels.
struct Same {
    mean: Vec<f32>,
    var: Vec<f32>,
}

/// Channels of every BatchNorm of the test spaces' operators, in program order.
fn channels(supernet: &Supernet, edge: usize, operator: u8, bn: u16) -> Option<usize> {
    supernet.program(edge, operator).ok()?.batch_norms().nth(usize::from(bn)).map(|c| c as usize)
}

struct Values(Supernet, Same);

impl BnSource for Values {
    fn bn(&self, edge: usize, operator: u8, bn: u16) -> Option<BnValues<'_>> {
        let n = channels(&self.0, edge, operator, bn)?;
        let (mean, var) = (&self.1.mean[..n], &self.1.var[..n]);
        Some(BnValues { gamma: var, beta: mean, mean, var })
    }
}

fn values(supernet: &Supernet) -> Values {
    let mean = (0..64).map(|i| 0.01 * i as f32).collect();
    let var = (0..64).map(|i| 1.0 + 0.1 * i as f32).collect();
    Values(supernet.clone(), Same { mean, var })
}

fn bundle(supernet: &Supernet) -> (tempfile::TempDir, Bundle) {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("b");
    write(supernet, &BuildOptions { seed: 3, ..Default::default() }, &out, &mut |_| {}).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    (root, bundle)
}

fn model(supernet: &Supernet, choices: &[u8]) -> ModelProto {
    let (_root, bundle) = bundle(supernet);
    let extra = [("score".to_owned(), "0.5".to_owned())];
    let bytes = subnet(&bundle, &Path::new(choices).unwrap(), &values(supernet), &extra).unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

fn count(graph: &GraphProto, op_type: &str) -> usize {
    graph.node.iter().filter(|n| n.op_type() == op_type).count()
}

/// Every value is given before it is used, and no constant is external.
fn is_sound(graph: &GraphProto) {
    let mut known: Vec<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    assert!(graph.initializer.iter().all(|t| t.external_data.is_empty() && !t.raw_data().is_empty()));
    known.extend(graph.input.iter().map(|i| i.name()));
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(&input.as_str()), "`{input}` is used before it is given");
        }
        for output in &node.output {
            assert!(!known.contains(&output.as_str()), "`{output}` is given twice");
            known.push(output);
        }
    }
    assert!(known.contains(&"logits"));
}

#[test]
fn batch_norms_fold_into_convolutions_and_stay_elsewhere() {
    let mb = model(&tiny(), &[1]);
    let graph = mb.graph.as_ref().unwrap();
    is_sound(graph);
    assert_eq!((count(graph, "BatchNormalization"), count(graph, "Conv")), (0, 4));
    let identity = model(&tiny(), &[0]);
    let graph = identity.graph.as_ref().unwrap();
    is_sound(graph);
    assert_eq!((count(graph, "BatchNormalization"), count(graph, "Conv")), (1, 1), "the fairness BN stays");
    let metadata: Vec<_> = identity.metadata_props.iter().map(|p| (p.key(), p.value())).collect();
    for pair in [("space", "tiny"), ("path", "0"), ("seed", "3"), ("placement", "every-operator"), ("score", "0.5")] {
        assert!(metadata.contains(&pair), "{pair:?}");
    }
}

#[test]
fn cells_join_their_edges_and_absent_ones_are_zeros() {
    // `none` twice: node 1 has no edge, so the edge from it starts at zeros.
    let graph = model(&cell(), &[0, 0, 1]).graph.unwrap();
    is_sound(&graph);
    assert_eq!((count(&graph, "ConstantOfShape"), count(&graph, "Concat")), (1, 2));
    let graph = model(&cell(), &[1, 3, 2]).graph.unwrap();
    is_sound(&graph);
    assert_eq!((count(&graph, "ConstantOfShape"), count(&graph, "Concat")), (0, 1));
}

#[test]
fn parameters_are_those_of_the_path_alone() {
    let supernet = tiny();
    let (_root, bundle) = bundle(&supernet);
    let bytes = parameters(&bundle, &Path::new(&[0]).unwrap(), &values(&supernet)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let bn = |key: &str| ["beta", "gamma", "running_mean", "running_var"].map(|p| format!("{key}.bn0.{p}"));
    let mut expected = [bn("e00.stem"), bn("e01.identity")].concat();
    expected.extend(["e00.stem.conv0.weight", "e02.head.linear0.bias", "e02.head.linear0.weight"].map(String::from));
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn wrong_paths_and_values_are_refused() {
    let supernet = tiny();
    let (_root, bundle) = bundle(&supernet);
    let good = values(&supernet);
    assert!(matches!(subnet(&bundle, &Path::new(&[3]).unwrap(), &good, &[]), Err(SubnetError::Path(_))));
    let mut bad = values(&supernet);
    bad.1.var[0] = -1.0;
    let path = Path::new(&[1]).unwrap();
    assert!(matches!(subnet(&bundle, &path, &bad, &[]), Err(SubnetError::BatchNorm { .. })));
    bad.1.var[0] = f32::NAN;
    assert!(matches!(parameters(&bundle, &path, &bad), Err(SubnetError::BatchNorm { .. })));
}

#[test]
fn timm_definitions_leave_identity_out_and_need_blocks_for_the_rest() {
    let supernet = tiny();
    let definition_of = |choices: &[u8]| timm_arch_def(&supernet, &Path::new(choices).unwrap()).unwrap();
    assert_eq!(definition_of(&[1])["arch_def"], serde_json::json!([["ir_r1_k3_s1_e2_c8"]]));
    assert_eq!(definition_of(&[0])["arch_def"], serde_json::json!([]));
    assert_eq!(definition_of(&[2])["stem_size"], 8);
    assert_eq!(definition_of(&[2])["num_classes"], 4);
    assert_eq!(timm_arch_def(&cell(), &Path::new(&[1, 1, 1]).unwrap()), None);
}

#[test]
fn a_definition_names_every_parameter() {
    let mut supernet = tiny();
    supernet.placement = BnPlacement::Convolution;
    let value = definition(&supernet, &Path::new(&[1]).unwrap());
    let steps = value["edges"][1]["steps"].as_array().unwrap();
    let parameters: Vec<_> = steps.iter().filter_map(|s| s["parameters"].as_str()).collect();
    assert_eq!(
        parameters,
        ["conv0", "bn0", "conv1", "bn1", "conv2", "bn2"].map(|p| format!("e01.mb.{p}")).each_ref().map(String::as_str)
    );
    assert_eq!(value["path"], "1");
}

/// Numbers in the file of parameters that are trained: all but running statistics.
fn trained(bundle: &Bundle, supernet: &Supernet, path: &Path) -> u64 {
    let bytes = parameters(bundle, path, &values(supernet)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let trained = tensors.iter().filter(|(name, _)| !name.contains(".running_"));
    trained.map(|(_, tensor)| tensor.shape().iter().product::<usize>() as u64).sum()
}

#[test]
fn a_definition_counts_fairness_batch_norms_apart() {
    let mut supernet = tiny();
    for (placement, choice, fairness) in [
        // The identity has eight channels.
        (BnPlacement::EveryOperator, 0, 2 * 8),
        (BnPlacement::EveryOperator, 1, 0),
        (BnPlacement::Convolution, 0, 0),
    ] {
        supernet.placement = placement;
        let path = Path::new(&[choice]).unwrap();
        let value = definition(&supernet, &path);
        let count = |name: &str| value[name].as_u64().unwrap();
        assert_eq!(count("onnx_params"), count("params") + fairness, "{placement:?} {choice}");
        let (_root, bundle) = bundle(&supernet);
        assert_eq!(count("onnx_params"), trained(&bundle, &supernet, &path), "{placement:?} {choice}");
    }
}
