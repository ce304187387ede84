//! Where the values of graphs live, if a provider has memory of its own.

use nasbn_models::manifest::{Port, Role};

/// In whose memory a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// The host's: this program can read it.
    Host,
    /// The provider's: other graphs can read it, without a copy.
    Device,
}

/// Where a port's value lives while graphs of `role` run: with the host what this program makes or reads, with the provider
/// what graphs hand to each other.
pub const fn residence(role: Role, port: Port) -> Residence {
    match (role, port) {
        // SynFlow goes from operator to operator through the host, which scales in between.
        (Role::SynFlow, _) => Residence::Host,
        (_, Port::X | Port::Y | Port::Dy | Port::Dx | Port::Saved(_)) => Residence::Device,
        (_, Port::Logits | Port::DLogits | Port::Part(_)) => Residence::Device,
        (_, Port::Gamma(_) | Port::Beta(_) | Port::Mean(_) | Port::Var(_) | Port::Labels) => Residence::Host,
        (_, Port::DGamma(_) | Port::DBeta(_) | Port::SampleDGamma(_) | Port::SampleDBeta(_)) => Residence::Host,
        (_, Port::Loss | Port::SampleLoss | Port::Agreement | Port::Flow(_)) => Residence::Host,
    }
}

#[cfg(test)]
mod tests {
    use nasbn_models::manifest::MemoryMode;

    use super::*;

    const ROLES: [Role; 13] = [
        Role::Forward(MemoryMode::Fast),
        Role::Forward(MemoryMode::Lean),
        Role::Backward(MemoryMode::Fast),
        Role::Backward(MemoryMode::Lean),
        Role::Evaluate,
        Role::Inference,
        Role::Loss,
        Role::Sum,
        Role::Concat,
        Role::Split,
        Role::Jacobian,
        Role::Signs,
        Role::SynFlow,
    ];
    /// Outputs that a graph takes as an input of another name, or the same.
    const HANDED_ON: [(Port, Port); 7] = [
        (Port::Y, Port::X),
        (Port::Y, Port::Part(1)),
        (Port::Y, Port::Logits),
        (Port::Saved(2), Port::Saved(2)),
        (Port::DLogits, Port::Dy),
        (Port::Part(1), Port::Dy),
        (Port::Dx, Port::Dy),
    ];
    /// What this program makes or reads.
    const OURS: [Port; 13] = [
        Port::Gamma(0),
        Port::Beta(1),
        Port::Mean(0),
        Port::Var(3),
        Port::Labels,
        Port::DGamma(0),
        Port::DBeta(0),
        Port::SampleDGamma(0),
        Port::SampleDBeta(0),
        Port::Loss,
        Port::SampleLoss,
        Port::Agreement,
        Port::Flow(0),
    ];

    #[test]
    fn what_graphs_hand_on_stays_with_the_provider_at_both_ends() {
        for role in ROLES {
            let expected = if role == Role::SynFlow { Residence::Host } else { Residence::Device };
            for (from, to) in HANDED_ON {
                assert_eq!([residence(role, from), residence(role, to)], [expected; 2], "{role:?}: {from:?} to {to:?}");
            }
            for port in OURS {
                assert_eq!(residence(role, port), Residence::Host, "{role:?}: {port:?}");
            }
        }
    }
}
