//! The policy with pretended providers, profiles of mixed placement, hints, and caches. No GPU is needed for any.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, fs};

use super::{error::shortened, *};

/// A profile as ONNX Runtime writes one, of nodes with name, operator and provider.
fn profile(nodes: &[(&str, &str, &str)]) -> String {
    let event = |(i, (name, op, provider)): (usize, &(&str, &str, &str))| {
        format!(
            r#"{{"cat" : "Node","pid" :7,"tid" :7,"dur" :11,"ts" :{i},"ph" : "X","name" :"{name}_kernel_time","args" : {{"thread_scheduling_stats" : {{"main_thread": {{"thread_pool_name": "session-1-intra-op"}}}},"input_type_shape" : [{{"float":[1,4,8,8]}}],"output_size" : "1024","parameter_size" : "64","activation_size" : "1024","node_index" : "{i}","provider" : "{provider}","op_name" : "{op}"}}}},"#
        )
    };
    let nodes: Vec<String> = nodes.iter().enumerate().map(event).collect();
    format!(
        "[\n{}\n{}\n{}\n{}\n]\n",
        r#"{"cat" : "Session","pid" :7,"tid" :7,"dur" :398,"ts" :4,"ph" : "X","name" :"model_loading_array","args" : {}},"#,
        nodes.join("\n"),
        // What CUPTI tells of a kernel on the GPU is no node.
        r#"{"cat" : "Kernel","pid" :-1,"tid" :-1,"dur" :3,"ts" :9,"ph" : "X","name" :"cudnn::conv","args" : {"stream" : "1","op_name" : "Conv"}},"#,
        r#"{"cat" : "Session","pid" :7,"tid" :7,"dur" :99,"ts" :40,"ph" : "X","name" :"model_run","args" : {}}"#,
    )
}

const CPU: &str = "CPUExecutionProvider";
const CUDA: &str = "CUDAExecutionProvider";
const TENSORRT: &str = "TensorrtExecutionProvider";

fn mixed() -> Placement {
    let nodes = [
        ("Memcpy0", "MemcpyFromHost", CUDA),
        ("Conv0", "Conv", CUDA),
        ("Conv1", "Conv", CUDA),
        ("Shape0", "Shape", CPU),
        ("Gather0", "Gather", CPU),
        ("Gather1", "Gather", CPU),
    ];
    Placement::parse(&profile(&nodes)).unwrap()
}

#[test]
fn a_profile_tells_where_nodes_ran() {
    let placement = mixed();
    assert_eq!(placement.nodes(), BTreeMap::from([("cpu", 3), ("cuda", 3)]));
    let on_cpu = BTreeMap::from([("cpu", BTreeMap::from([("Gather", 2), ("Shape", 1)]))]);
    assert_eq!(placement.left_by(Provider::Cuda), on_cpu);
    assert_eq!(placement.to_string(), "3 nodes on cpu, 3 nodes on cuda");
    assert_eq!(placement.left_in_words(Provider::Cuda).unwrap(), "3 nodes to cpu (Gather 2, Shape 1)");
    let json = serde_json::to_string(&placement).unwrap();
    assert!(json.starts_with(r#"[{"provider":"cpu","operator":"Gather","nodes":2},{"provider":"cpu","#), "{json}");
    assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placement);
    assert!(placement.check(Provider::Cuda, "it").is_ok());
    let twice = placement.clone().with(placement.clone());
    assert_eq!([Placement::default(), placement.clone(), twice.clone()].map(|p| p.copies()), [0, 1, 2]);
    assert_eq!(twice.nodes(), BTreeMap::from([("cpu", 6), ("cuda", 6)]));
    assert_eq!(placement.clone().with(Placement::default()), placement);
}

#[test]
fn what_cuda_runs_in_the_place_of_tensorrt_is_told() {
    // TensorRT refused every graph, and ONNX Runtime went on with CUDA.
    let silently = [("Conv0", "Conv", CUDA), ("Conv1", "Conv", CUDA), ("Shape0", "Shape", CPU)];
    let silently = Placement::parse(&profile(&silently)).unwrap();
    assert!(silently.check(Provider::Cuda, "it").is_ok());
    let error = silently.check(Provider::TensorRt, "network 012").unwrap_err();
    assert_eq!(error.to_string(), "tensorrt ran no node of network 012 that computes: 2 nodes on cuda, 1 node on cpu");
    // It took a part: what ran on the other accelerator is told beside what ran on the CPU.
    let nodes = [("TRT0", "TRTKernel_graph_0", TENSORRT), ("Resize0", "Resize", CUDA), ("Shape0", "Shape", CPU)];
    let partly = Placement::parse(&profile(&nodes)).unwrap();
    assert!(partly.check(Provider::TensorRt, "it").is_ok());
    let told = partly.left_in_words(Provider::TensorRt).unwrap();
    assert_eq!(told, "1 node to cpu (Shape 1), 1 node to cuda (Resize 1)");
    let whole = Placement::parse(&profile(&nodes[..1])).unwrap();
    assert_eq!(whole.left_in_words(Provider::TensorRt), None);
}

#[test]
fn a_node_that_ran_twice_is_one_and_engines_are_nodes() {
    let once = profile(&[("TRTKernel_graph_a_0", "TRTKernel_graph_a", TENSORRT), ("Resize0", "Resize", CUDA)]);
    let twice = once.replace("\n]\n", &format!(",\n{}", once.trim_start_matches("[\n")));
    let placement = Placement::parse(&twice).unwrap();
    assert_eq!(placement, Placement::parse(&once).unwrap());
    assert_eq!(placement.to_string(), "1 node on cuda, 1 node on tensorrt");
    assert!(placement.check(Provider::TensorRt, "it").is_ok());
    let other = Placement::parse(&profile(&[("a", "Conv", "XnnpackExecutionProvider")])).unwrap();
    assert_eq!(other.to_string(), "1 node on xnnpack");
}

#[test]
fn a_model_that_the_cpu_ran_alone_is_told_though_copies_ran_on_the_gpu() {
    let nodes = [("Memcpy0", "MemcpyFromHost", CUDA), ("Conv0", "Conv", CPU), ("Memcpy1", "MemcpyToHost", CUDA)];
    let placement = Placement::parse(&profile(&nodes)).unwrap();
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let error = placement.check(provider, "it").unwrap_err();
        assert!(
            error.to_string().contains(&format!("{provider} ran no node of it that computes: 2 nodes on cuda")),
            "{error}"
        );
        assert!(error.hint().contains("such as cpu"));
    }
    assert!(placement.check(Provider::Cpu, "it").is_ok());
}

#[test]
fn what_is_no_profile_is_refused() {
    for text in ["", "{}", "[1]", "[{\"cat\": \"Node\"", "not json"] {
        assert!(matches!(Placement::parse(text), Err(PlacementError::Format(_))), "{text}");
    }
    for text in
        ["[]", "[{}]", r#"[{"cat":"Node","name":"a","args":{"op_name":"Conv"}}]"#, r#"[{"cat":"Node","args":3}]"#]
    {
        assert!(matches!(Placement::parse(text), Err(PlacementError::Empty)), "{text}");
    }
}

/// A machine on which only these work; CUDA is built in, but refuses to start.
fn machine(working: &'static [Provider]) -> impl FnMut(Provider) -> Result<(), ProviderError> {
    move |provider| match provider {
        works if working.contains(&works) => Ok(()),
        Provider::TensorRt => Err(ProviderError::NotBuiltIn { provider }),
        _ => Err(ProviderError::Refused {
            provider,
            reason: "CUDA failure 100: no CUDA-capable device is detected".into(),
        }),
    }
}

#[test]
fn a_provider_that_is_named_works_or_is_an_error() {
    let gpu = || machine(&[Provider::Cpu, Provider::Cuda, Provider::TensorRt]);
    let cpu = || machine(&[Provider::Cpu]);
    for (choice, expected) in [(Choice::Cuda, Provider::Cuda), (Choice::TensorRt, Provider::TensorRt)] {
        let resolved = resolve(choice, false, gpu()).unwrap();
        assert_eq!((resolved.provider, resolved.problem.is_none()), (expected, true));
        assert!(resolve(choice, false, cpu()).is_err());
        // Allowed, it is the CPU, and why is told.
        let resolved = resolve(choice, true, cpu()).unwrap();
        assert_eq!((resolved.provider, resolved.problem.is_some()), (Provider::Cpu, true));
    }
    let never = |provider| -> Result<(), ProviderError> { panic!("{provider} was tried") };
    assert_eq!(resolve(Choice::Cpu, false, never).unwrap().provider, Provider::Cpu);
}

#[test]
fn auto_is_cuda_where_it_works_and_never_tensorrt() {
    let auto = |working| resolve(Choice::Auto, false, machine(working)).unwrap();
    assert_eq!(auto(&[Provider::Cuda, Provider::TensorRt]).provider, Provider::Cuda);
    let broken = auto(&[Provider::TensorRt]);
    assert_eq!((broken.provider, broken.problem.is_some()), (Provider::Cpu, true));
    let shared = "Failed to load library libonnxruntime_providers_shared.so with error: /lib/libonnxruntime_providers_shared.so: \
                  cannot open shared object file: No such file or directory";
    let missing = resolve(Choice::Auto, false, |provider| Err(ProviderError::said(provider, shared))).unwrap();
    assert_eq!((missing.provider, missing.problem.is_none()), (Provider::Cpu, true));
    assert!(resolve(Choice::Cuda, false, |provider| Err(ProviderError::said(provider, shared))).is_err());
    // There, but without what it needs: that is told.
    let cublas = "Failed to load library libonnxruntime_providers_cuda.so with error: libcublas.so.12: cannot open shared object file";
    let broken = resolve(Choice::Auto, false, |provider| Err(ProviderError::said(provider, cublas))).unwrap();
    assert_eq!((broken.provider, broken.problem.is_some()), (Provider::Cpu, true));
    let none = resolve(Choice::Auto, false, |provider| Err(ProviderError::NotBuiltIn { provider })).unwrap();
    assert_eq!((none.provider, none.problem.is_none()), (Provider::Cpu, true));
}

#[test]
fn hints_say_what_is_missing() {
    let hint = |reason: &str| ProviderError::Refused { provider: Provider::Cuda, reason: reason.into() }.hint();
    for (reason, expected) in [
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open shared object file",
            "CUDA's libraries",
        ),
        (
            "Failed to load library libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot open",
            "TensorRT's libraries",
        ),
        (
            "Failed to load library libonnxruntime_providers_shared.so with error: cannot open shared object file",
            "provider's library is missing",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "no GPU is there"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "driver is older"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "no code for this GPU"),
        ("something else", "another library with --ort-library"),
    ] {
        assert!(hint(reason).contains(expected), "{reason}: {}", hint(reason));
        // `nasbn doctor` says these hints itself, on boards that have its package and nothing else of this repository.
        assert!(!hint(reason).contains("doctor") && !hint(reason).contains("docs/"), "{}", hint(reason));
    }
}

#[test]
fn reasons_are_one_short_line() {
    let long = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1426 onnxruntime::Provider& \
                onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library libx.so with error: \
                liby.so.12: cannot open shared object file\n\nstack trace";
    assert_eq!(
        shortened(long),
        "Failed to load library libx.so with error: liby.so.12: cannot open shared object file"
    );
    assert_eq!(shortened("plain : words"), "plain : words");
    assert_eq!(shortened("\n"), "no reason was given");
    assert_eq!(shortened(&"ä".repeat(1000)).chars().count(), 243);
}

#[test]
fn engines_are_kept_by_bundle_precision_and_graph() {
    let bundle = tempfile::tempdir().unwrap();
    let open = |digest: u8, precision| EngineCache::open(bundle.path(), "1.23.2", &[digest; 32], precision).unwrap();
    let cache = open(1, Precision::Fp16);
    assert_eq!(cache.timing(), bundle.path().join("cache/tensorrt-1.23.2"));
    let (directory, hit) = cache.of_model(b"kernel 3", Precision::Fp16).unwrap();
    assert!(!hit && cache.engines() == 0 && directory.is_dir());
    fs::write(directory.join("TensorrtExecutionProvider_TRTKernel_graph_0_fp16_sm87.engine"), b"engine").unwrap();
    fs::write(directory.join("TensorrtExecutionProvider_TRTKernel_graph_0_fp16_sm87.profile"), b"profile").unwrap();
    fs::write(cache.timing().join("TensorrtExecutionProvider_cache_sm87.timing"), b"timing").unwrap();
    assert!(cache.of_model(b"kernel 3", Precision::Fp16).unwrap().1 && cache.engines() == 1);
    // Equal names in another graph, other weights, another precision, another version: none of its engines.
    assert!(!cache.of_model(b"kernel 5", Precision::Fp16).unwrap().1);
    assert_eq!((open(2, Precision::Fp16).engines(), open(1, Precision::Fp32).engines()), (0, 0));
    let newer = EngineCache::open(bundle.path(), "1.24.0", &[1; 32], Precision::Fp16).unwrap();
    assert_eq!((newer.engines(), open(1, Precision::Fp16).engines()), (0, 1));
    // What is computed with fp32 beside inference with fp16 is that of a run with fp32.
    let (gradient, hit) = cache.of_model(b"kernel 3", Precision::Fp32).unwrap();
    assert!(!hit && gradient != directory);
    fs::write(gradient.join("a.engine"), b"engine").unwrap();
    assert!(open(1, Precision::Fp32).of_model(b"kernel 3", Precision::Fp32).unwrap().1);
    assert_eq!((open(1, Precision::Fp16).engines(), open(1, Precision::Fp32).engines()), (2, 1));
}

#[test]
fn a_bundle_that_cannot_be_written_has_no_cache() {
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("cache"), b"a file where the directory would be").unwrap();
    assert!(EngineCache::open(bundle.path(), "1.23.2", &[1; 32], Precision::Fp32).is_err());
}

#[test]
fn tensorrt_is_told_its_precision_and_where_its_caches_are() {
    let with = format!("{:?}", tensorrt(Precision::Fp16, Some((Path::new("/b/cache"), Path::new("/b/cache/graph")))));
    for (option, value) in [
        ("trt_fp16_enable", "true"),
        ("trt_engine_cache_enable", "true"),
        ("trt_engine_cache_path", "/b/cache/graph"),
        ("trt_timing_cache_enable", "true"),
        ("trt_timing_cache_path", "/b/cache"),
    ] {
        assert!(with.contains(&format!("{option:?}")) && with.contains(&format!("{value:?}")), "{option}: {with}");
    }
    let without = format!("{:?}", tensorrt(Precision::Fp32, None));
    assert!(without.contains("\"false\"") && !without.contains("cache"), "{without}");
}
