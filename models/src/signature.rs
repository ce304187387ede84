//! Which ports the graph of a role has: what [`Manifest::decode`](crate::Manifest::decode) holds a bundle to.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};

use crate::{
    Combine, Supernet,
    manifest::{Graph, MemoryMode, NamedPort, Owner, Port, Role},
};

/// Whether a graph must have a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// With every index that there is, once.
    All,
    /// Only where the graph has a use for it.
    Some,
}

/// What may own a graph of a role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operator,
    Concatenation,
    Network,
}

/// A port (whatever its index) and whether it is needed.
type Rule = (Port, Need);

/// Ports of a role.
struct Signature {
    kind: Kind,
    inputs: &'static [Rule],
    outputs: &'static [Rule],
}

/// The table: a new role is a new line.
const fn signature(role: Role) -> Signature {
    use Need::{All, Some};
    use Port::{Agreement, Beta, DBeta, DGamma, DLogits, Dx, Dy, Flow, Gamma, Labels, Logits, Loss};
    use Port::{Mean, Part, SampleDBeta, SampleDGamma, SampleLoss, Saved, Var, X, Y};
    const fn of(kind: Kind, inputs: &'static [Rule], outputs: &'static [Rule]) -> Signature {
        Signature { kind, inputs, outputs }
    }
    match role {
        Role::Forward(MemoryMode::Fast) => of(
            Kind::Operator,
            &[(X, All), (Gamma(0), All), (Beta(0), All)],
            &[(Y, All), (Saved(0), Some), (Mean(0), All), (Var(0), All)],
        ),
        Role::Forward(MemoryMode::Lean) => {
            of(Kind::Operator, &[(X, All), (Gamma(0), All), (Beta(0), All)], &[(Y, All), (Mean(0), All), (Var(0), All)])
        }
        Role::Backward(MemoryMode::Fast) => of(
            Kind::Operator,
            &[
                (X, Some),
                (Dy, All),
                (Saved(0), Some),
                (Gamma(0), Some),
                (Beta(0), Some),
                (Mean(0), Some),
                (Var(0), Some),
            ],
            &[(Dx, Some), (DGamma(0), All), (DBeta(0), All)],
        ),
        Role::Backward(MemoryMode::Lean) => of(
            Kind::Operator,
            &[(X, Some), (Dy, All), (Gamma(0), Some), (Beta(0), Some), (Mean(0), Some), (Var(0), Some)],
            &[(Dx, Some), (DGamma(0), All), (DBeta(0), All)],
        ),
        Role::Evaluate => {
            of(Kind::Operator, &[(X, All), (Gamma(0), All), (Beta(0), All), (Mean(0), All), (Var(0), All)], &[(Y, All)])
        }
        Role::Inference => of(Kind::Operator, &[(X, All)], &[(Y, All)]),
        Role::Loss => {
            of(Kind::Network, &[(Logits, All), (Labels, All)], &[(Loss, All), (SampleLoss, All), (DLogits, All)])
        }
        Role::Jacobian => of(
            Kind::Operator,
            &[
                (X, Some),
                (Dy, All),
                (Saved(0), Some),
                (Gamma(0), Some),
                (Beta(0), Some),
                (Mean(0), Some),
                (Var(0), Some),
            ],
            &[(Dx, Some), (SampleDGamma(0), All), (SampleDBeta(0), All)],
        ),
        Role::Signs => of(
            Kind::Operator,
            &[(X, Some), (Saved(0), Some), (Gamma(0), Some), (Beta(0), Some), (Mean(0), Some), (Var(0), Some)],
            &[(Agreement, All)],
        ),
        Role::SynFlow => of(Kind::Operator, &[(X, All), (Dy, All)], &[(Y, All), (Dx, All), (Flow(0), Some)]),
        Role::Sum => of(Kind::Network, &[(Part(0), All)], &[(Y, All)]),
        Role::Concat => of(Kind::Concatenation, &[(Part(0), All)], &[(Y, All)]),
        Role::Split => of(Kind::Concatenation, &[(Dy, All)], &[(Part(0), All)]),
    }
}

/// Parts of a sum.
const SUMMANDS: usize = 2;

/// A port's kind, and its index where it has one.
fn split(port: Port) -> (core::mem::Discriminant<Port>, Option<u16>) {
    let index = match port {
        Port::Saved(i) | Port::Gamma(i) | Port::Beta(i) | Port::Mean(i) | Port::Var(i) => Some(i),
        Port::DGamma(i) | Port::DBeta(i) | Port::Part(i) => Some(i),
        Port::SampleDGamma(i) | Port::SampleDBeta(i) | Port::Flow(i) => Some(i),
        Port::X | Port::Y | Port::Dy | Port::Dx | Port::Logits | Port::Labels => None,
        Port::Loss | Port::SampleLoss | Port::DLogits | Port::Agreement => None,
    };
    (core::mem::discriminant(&port), index)
}

/// Checks owner and ports of a graph against its role and a validated supernet.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn check(supernet: &Supernet, graph: &Graph) -> Result<(), String> {
    let signature = signature(graph.role);
    let (batch_norms, parts) = extents(supernet, graph, signature.kind)?;
    let count = |port: Port| match port {
        Port::Part(_) => parts,
        // Flows are summed, whatever their number.
        Port::Flow(_) => usize::MAX,
        port if split(port).1.is_some() => batch_norms,
        _ => 1,
    };
    named(&graph.inputs, signature.inputs, count).map_err(|problem| format!("inputs: {problem}"))?;
    named(&graph.outputs, signature.outputs, count).map_err(|problem| format!("outputs: {problem}"))?;
    // Without a gradient of its input, an operator would cut off all that stands before it.
    let from_image = match graph.owner {
        Owner::Operator { edge, .. } => supernet.edges.get(usize::from(edge)).is_some_and(|e| e.from == 0),
        _ => true,
    };
    let has_dx = graph.outputs.iter().any(|p| p.port == Port::Dx);
    if matches!(graph.role, Role::Backward(_) | Role::Jacobian) && !from_image && !has_dx {
        return Err("outputs: Dx is missing, though its edge does not start at the image".into());
    }
    Ok(())
}

/// Number of the owner's BatchNorms, and of the tensors that it joins.
fn extents(supernet: &Supernet, graph: &Graph, kind: Kind) -> Result<(usize, usize), String> {
    match (kind, graph.owner) {
        (Kind::Operator, Owner::Operator { edge, operator }) => {
            let e = supernet.edges.get(usize::from(edge)).filter(|e| supernet.candidates(e).contains(&operator));
            let program = e.and_then(|_| supernet.program(usize::from(edge), operator).ok());
            let program = program.ok_or("it belongs to an operator that the supernet does not have")?;
            Ok((program.batch_norms().count(), 0))
        }
        (Kind::Concatenation, Owner::Node(node)) => {
            let joins = supernet.nodes.get(usize::from(node)).is_some_and(|n| n.combine == Combine::Concat);
            let parts = supernet.edges.iter().filter(|e| e.to == node).count();
            match joins && parts > 1 {
                true => Ok((0, parts)),
                false => Err("it belongs to a node that the supernet does not have, or that joins nothing".into()),
            }
        }
        (Kind::Network, Owner::Network) => Ok((0, SUMMANDS)),
        (_, owner) => Err(format!("a graph of role {:?} cannot belong to {owner:?}", graph.role)),
    }
}

/// Every port allowed, within its bounds and there once; every needed one there.
fn named(ports: &[NamedPort], rules: &[Rule], count: impl Fn(Port) -> usize) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut seen: Vec<Port> = Vec::new();
    for NamedPort { port, name } in ports {
        let (kind, index) = split(*port);
        if !rules.iter().any(|(allowed, _)| split(*allowed).0 == kind) {
            return Err(format!("{port:?} is none that its role has"));
        }
        if index.is_some_and(|i| usize::from(i) >= count(*port)) {
            return Err(format!("{port:?} is one of {} that its owner has", count(*port)));
        }
        if seen.contains(port) || !names.insert(name) {
            return Err(format!("{port:?} or its name `{name}` is there twice"));
        }
        seen.push(*port);
    }
    for &(port, need) in rules {
        let found = seen.iter().filter(|p| split(**p).0 == split(port).0).count();
        if need == Need::All && found != count(port) {
            return Err(format!("{found} of {} ports like {port:?} are there", count(port)));
        }
    }
    Ok(())
}
