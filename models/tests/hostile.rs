//! Manifests and space files that are cut off, altered or made up: errors, never a panic.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, missing_docs)]

use nasbn_models::{
    BnPlacement, Combine, Manifest, Supernet,
    cost::CostTable,
    manifest::{FORMAT_VERSION, Graph, Lowering, MAGIC, ManifestError, MemoryMode, NamedPort, Owner, Port, Role},
    sample,
    spec::{self, SpaceOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

const OPTIONS: SpaceOptions =
    SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };

fn tiny() -> Supernet {
    spec::parse(include_str!("fixtures/tiny-cell.toml"), "tiny-cell.toml", &OPTIONS).unwrap()
}

fn manifest() -> Manifest {
    Manifest {
        generator: "test".into(),
        supernet: tiny(),
        seed: 0,
        weights: "he-normal".into(),
        epsilon_bits: 1e-5f32.to_bits(),
        files: ["graphs/weights.safetensors", "initial.safetensors"]
            .map(|name| nasbn_models::manifest::FileEntry { name: name.into(), bytes: 1, sha256: [0; 32] })
            .into(),
        weights_file: 0,
        initial_file: 1,
        graphs: graphs(&tiny()),
    }
}

/// Bytes of the SHA-256 that a manifest ends with.
const DIGEST_BYTES: usize = 32;

/// What stands before the SHA-256 of a manifest.
fn unsealed(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = manifest.encode().unwrap();
    bytes.truncate(bytes.len() - DIGEST_BYTES);
    bytes
}

/// `bytes` with the SHA-256 that fits them, as somebody would make it who alters a manifest on purpose.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// The graphs that an exporter writes, in one lowering: what validation must let through.
fn graphs(supernet: &Supernet) -> Vec<Graph> {
    let mut graphs = Vec::new();
    let mut add = |owner, role, inputs: Vec<Port>, outputs: Vec<Port>| {
        let named = |(i, port): (usize, Port)| NamedPort { port, name: i.to_string() };
        let [inputs, outputs] = [inputs, outputs].map(|ports| ports.into_iter().enumerate().map(named).collect());
        graphs.push(Graph { owner, role, lowering: Lowering::Portable, file: 0, inputs, outputs });
    };
    for (e, edge) in supernet.edges.iter().enumerate() {
        for &operator in supernet.candidates(edge) {
            let owner = Owner::Operator { edge: e as u16, operator };
            let bns = supernet.program(e, operator).unwrap().batch_norms().count() as u16;
            let with = |first: &[Port], kinds: &[fn(u16) -> Port]| -> Vec<Port> {
                let each = (0..bns).flat_map(|i| kinds.iter().map(move |kind| kind(i)));
                first.iter().copied().chain(each).collect()
            };
            for memory in [MemoryMode::Fast, MemoryMode::Lean] {
                let saved: &[fn(u16) -> Port] = if memory == MemoryMode::Fast {
                    &[Port::Mean, Port::Var, Port::Saved]
                } else {
                    &[Port::Mean, Port::Var]
                };
                let inputs = with(&[Port::X], &[Port::Gamma, Port::Beta]);
                add(owner, Role::Forward(memory), inputs, with(&[Port::Y], saved));
                let dx: &[Port] = if edge.from == 0 { &[] } else { &[Port::Dx] };
                let given = &[&[Port::Gamma as fn(u16) -> Port], saved].concat();
                add(owner, Role::Backward(memory), with(&[Port::Dy], given), with(dx, &[Port::DGamma, Port::DBeta]));
            }
            let inputs = with(&[Port::X], &[Port::Gamma, Port::Beta, Port::Mean, Port::Var]);
            add(owner, Role::Evaluate, inputs, vec![Port::Y]);
        }
    }
    for (n, _) in supernet.nodes.iter().enumerate().filter(|(_, node)| node.combine == Combine::Concat) {
        let parts: Vec<Port> = (0..supernet.edges.iter().filter(|e| usize::from(e.to) == n).count())
            .map(|i| Port::Part(i as u16))
            .collect();
        if parts.len() > 1 {
            add(Owner::Node(n as u16), Role::Concat, parts.clone(), vec![Port::Y]);
            add(Owner::Node(n as u16), Role::Split, vec![Port::Dy], parts);
        }
    }
    let loss = vec![Port::Loss, Port::SampleLoss, Port::DLogits];
    add(Owner::Network, Role::Loss, vec![Port::Logits, Port::Labels], loss);
    add(Owner::Network, Role::Sum, vec![Port::Part(0), Port::Part(1)], vec![Port::Y]);
    graphs
}

/// What a runtime relies on: no port's index is one that the owner does not have.
fn ports_are_within_their_owner(manifest: &Manifest) {
    for graph in &manifest.graphs {
        let bns = match graph.owner {
            Owner::Operator { edge, operator } => {
                manifest.supernet.program(usize::from(edge), operator).unwrap().batch_norms().count()
            }
            _ => 0,
        };
        let parts = match graph.owner {
            Owner::Node(node) => manifest.supernet.edges.iter().filter(|e| e.to == node).count(),
            _ => 2,
        };
        for NamedPort { port, .. } in graph.inputs.iter().chain(&graph.outputs) {
            match *port {
                Port::Part(i) => assert!(usize::from(i) < parts, "{graph:?}"),
                Port::Saved(i) | Port::Gamma(i) | Port::Beta(i) | Port::Mean(i) | Port::Var(i) => {
                    assert!(usize::from(i) < bns, "{graph:?}")
                }
                Port::DGamma(i) | Port::DBeta(i) => assert!(usize::from(i) < bns, "{graph:?}"),
                _ => {}
            }
        }
    }
}

/// Decodes `manifest` after `alter` changed the graph of `role`.
fn altered(role: Role, alter: impl Fn(&mut Graph)) -> Result<Manifest, ManifestError> {
    let mut manifest = manifest();
    let owned = |g: &&mut Graph| g.role == role && g.inputs.len() + g.outputs.len() > 2;
    alter(manifest.graphs.iter_mut().filter(owned).last().unwrap());
    Manifest::decode(&manifest.encode().unwrap())
}

#[test]
fn ports_that_a_role_or_its_owner_does_not_have_are_refused() {
    let forward = Role::Forward(MemoryMode::Fast);
    let backward = Role::Backward(MemoryMode::Fast);
    assert!(altered(forward, |_| {}).is_ok());
    type Case = (Role, fn(&mut Graph), &'static str);
    fn port(ports: &mut [NamedPort], from: Port) -> &mut Port {
        &mut ports.iter_mut().find(|p| p.port == from).unwrap().port
    }
    let cases: [Case; 14] = [
        (forward, |g| *port(&mut g.inputs, Port::Gamma(0)) = Port::Gamma(65535), "inputs: Gamma(65535)"),
        (forward, |g| *port(&mut g.outputs, Port::Var(0)) = Port::Var(9), "outputs: Var(9)"),
        (forward, |g| *port(&mut g.inputs, Port::Gamma(0)) = Port::Dy, "Dy is none that its role has"),
        (forward, |g| *port(&mut g.inputs, Port::Gamma(0)) = Port::Beta(0), "Beta(0) or its name"),
        (forward, |g| g.outputs.retain(|p| p.port != Port::Y), "0 of 1 ports like Y"),
        (forward, |g| g.outputs.retain(|p| p.port != Port::Mean(0)), "ports like Mean(0)"),
        (forward, |g| g.outputs.retain(|p| p.port != Port::Saved(0)), "keeps Saved(0)"),
        (forward, |g| g.inputs[1].name = g.inputs[0].name.clone(), "there twice"),
        (backward, |g| g.outputs.retain(|p| p.port != Port::DBeta(0)), "ports like DBeta(0)"),
        (backward, |g| g.outputs.retain(|p| p.port != Port::Dx), "Dx is missing"),
        (backward, |g| g.owner = Owner::Network, "cannot belong to Network"),
        (Role::Concat, |g| *port(&mut g.inputs, Port::Part(0)) = Port::Part(9), "Part(9)"),
        (Role::Concat, |g| g.owner = Owner::Node(60000), "a node that the supernet does not have"),
        (Role::Evaluate, |g| g.role = Role::Forward(MemoryMode::Fast), "the same owner, role and lowering"),
    ];
    for (role, alter, words) in cases {
        let error = altered(role, alter).unwrap_err();
        assert!(matches!(error, ManifestError::Graph { .. }), "{error}");
        assert!(error.to_string().contains(words), "expected {words:?} in: {error}");
    }
}

#[test]
fn mangled_manifests_are_errors() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let manifest = manifest();
    let bytes = manifest.encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    for end in (0..bytes.len()).step_by(3) {
        assert!(Manifest::decode(&bytes[..end]).is_err());
    }
    let body = unsealed(&manifest);
    assert_eq!(sealed(body.clone()), bytes);
    for end in (0..body.len()).step_by(3) {
        assert!(Manifest::decode(&sealed(body[..end].to_vec())).is_err());
    }
    for _ in 0..6_000 {
        let mut mangled = body.clone();
        for _ in 0..=sample::below(&mut rng, 3) {
            let at = sample::below(&mut rng, body.len() as u32) as usize;
            mangled[at] = sample::below(&mut rng, 256) as u8;
        }
        // Whatever it says, it must not panic, and what passes must be usable.
        if let Ok(read) = Manifest::decode(&sealed(mangled)) {
            ports_are_within_their_owner(&read);
            use_it(&read.supernet, &mut rng);
        }
    }
}

#[test]
fn mangled_space_files_are_errors() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let text = include_str!("fixtures/tiny-cell.toml");
    for _ in 0..2000 {
        let mut mangled = text.as_bytes().to_vec();
        let at = sample::below(&mut rng, mangled.len() as u32) as usize;
        mangled[at] = 32 + sample::below(&mut rng, 95) as u8;
        if let Ok(space) = spec::parse(std::str::from_utf8(&mangled).unwrap(), "mangled", &OPTIONS) {
            space.validate().unwrap();
        }
    }
}

#[test]
fn file_names_that_leave_the_bundle_are_refused() {
    for name in ["../x", "/etc/passwd", "a/../b", "a//b", "", ".", "c:\\x", "a\nb", "manifest.postcard"] {
        let manifest = Manifest {
            generator: String::new(),
            supernet: tiny(),
            seed: 0,
            weights: String::new(),
            epsilon_bits: 1e-5f32.to_bits(),
            files: vec![nasbn_models::manifest::FileEntry { name: name.into(), bytes: 0, sha256: [0; 32] }],
            weights_file: 0,
            initial_file: 0,
            graphs: Vec::new(),
        };
        let error = Manifest::decode(&manifest.encode().unwrap()).unwrap_err();
        assert!(error.to_string().contains("not a plain path"), "{name:?}: {error}");
    }
}

/// What passes must be usable: costs, canonical form, text and sampling without a panic.
fn use_it(supernet: &Supernet, rng: &mut ChaCha8Rng) {
    let path = sample::uniform(supernet, rng);
    assert!(supernet.contains(&path));
    CostTable::new(supernet).cost(&supernet.canonical(&path));
    // An alphabet that names an operator twice has texts that mean another path, but a text all the same.
    assert!(supernet.parse_path(&supernet.format_path(&path)).is_ok());
}

#[test]
fn random_bytes_are_errors() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for round in 0..20_000 {
        let head = [&MAGIC[..], &FORMAT_VERSION.to_le_bytes()].concat();
        let mut bytes: Vec<u8> = if round % 4 == 0 { Vec::new() } else { head };
        for _ in 0..sample::below(&mut rng, 300) {
            // Small numbers make lengths and tags that are believed.
            let range = if round % 2 == 0 { 256 } else { 6 };
            bytes.push(sample::below(&mut rng, range) as u8);
        }
        assert!(Manifest::decode(&bytes).is_err());
        assert!(Manifest::decode(&sealed(bytes)).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut bytes = manifest().encode().unwrap();
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = Manifest::decode(&bytes).unwrap_err();
        let expected = match bit / 8 {
            0..8 => matches!(error, ManifestError::Foreign),
            8..12 => matches!(error, ManifestError::Version { .. }),
            _ => matches!(error, ManifestError::Damaged(_)) && error.to_string().contains("SHA-256"),
        };
        assert!(expected, "bit {bit}: {error}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Manifest::decode(&bytes).unwrap();
}

#[test]
fn an_epsilon_that_makes_no_sense_is_refused() {
    for epsilon in [0.0, -0.0, -1.0, 1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let manifest = Manifest { epsilon_bits: epsilon.to_bits(), ..manifest() };
        let error = Manifest::decode(&manifest.encode().unwrap()).unwrap_err();
        assert!(error.to_string().contains(&format!("an epsilon of {epsilon} ")), "{error}");
    }
}

#[test]
fn flipped_bits_under_a_sha256_that_fits_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let body = unsealed(&manifest());
    // A step that is no multiple of 8 meets every bit of a byte in some field or other.
    for bit in (0..8 * body.len()).step_by(11) {
        let mut mangled = body.clone();
        mangled[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Manifest::decode(&sealed(mangled)) {
            ports_are_within_their_owner(&read);
            use_it(&read.supernet, &mut rng);
        }
    }
}

#[test]
fn the_largest_extents_do_not_overflow() {
    let operators = "[operator.big]\nkind = \"conv\"\nkernel = 31\n\
                     [operator.head]\nkind = \"head\"\nfeatures = 65536\n";
    let text = format!(
        "schema = 1\nname = \"big\"\nimage = {{ channels = 3, size = 4096 }}\nclasses = 65535\n\
         searchable = [\"big\"]\n{operators}[[layer]]\ncandidates = [\"big\"]\nout = 65536\nrepeat = 64\n\
         [[layer]]\noperator = \"big\"\nout = 65536\nrepeat = 1000\n\
         [[layer]]\noperator = \"head\"\nout = \"classes\"\n"
    );
    let space = spec::parse(&text, "big.toml", &OPTIONS).unwrap();
    let cost = CostTable::new(&space).cost(&sample::uniform(&space, &mut ChaCha8Rng::seed_from_u64(0)));
    assert_eq!((cost.macs, cost.depth), (u64::MAX, 64));
}
