//! SynFlow (Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic
//! flow", equation 1), as Abdelfattah et al. 2021 score networks with it: an image of ones, weights by
//! magnitude, no BatchNorm; R is the sum of the outputs, and the score the sum over weights of `w dR/dw`.
//!
//! All numbers are positive and grow with every layer, beyond f32 in deep networks. So every tensor is kept
//! with its largest number 1 and the log of its scale beside it, and the score is given as its log, which
//! ranks alike. Gates of squeeze-and-excitation are 1, as they are for the large inputs that they would get;
//! biases count as weights (and are 0 unless weights were given).

use nasbn_models::{Combine, Path};

use crate::{engine::EngineError, network::Network};

/// A tensor of one image, `exp(log) * values`, its largest number 1.
#[derive(Clone, Debug, PartialEq)]
struct Scaled {
    values: Vec<f32>,
    log: f64,
}

impl Scaled {
    /// From values with a scale; none if all are 0.
    fn new(mut values: Vec<f32>, log: f64) -> Option<Self> {
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        if largest == 0.0 {
            return None;
        }
        values.iter_mut().for_each(|v| *v /= largest);
        Some(Self { values, log: log + f64::from(largest).ln() })
    }

    /// The sum of two.
    fn add(self, other: &Self) -> Option<Self> {
        let log = self.log.max(other.log);
        let (a, b) = ((self.log - log).exp() as f32, (other.log - log).exp() as f32);
        let values = self.values.iter().zip(&other.values).map(|(x, y)| a * x + b * y).collect();
        Self::new(values, log)
    }
}

/// The log of the SynFlow score of a path; minus infinity if no weight carries anything.
///
/// # Errors
/// If a graph fails, or the bundle has none for SynFlow.
pub fn log_synflow(network: &mut Network, path: &Path) -> Result<f64, EngineError> {
    let supernet = network.supernet().clone();
    let size = |shape: nasbn_models::Shape| shape.channels as usize * shape.pixels() as usize;
    let absent = |e: usize, operator: u8| supernet.program(e, operator).is_ok_and(|p| p.is_absent());
    // Forwards: the value of every node.
    let mut nodes: Vec<Option<Scaled>> = vec![None; supernet.nodes.len()];
    nodes[0] = Scaled::new(vec![1.0; size(supernet.image())], 0.0);
    let mut parts: Vec<Option<Scaled>> = Vec::new();
    for (e, edge) in supernet.edges.iter().enumerate() {
        let (operator, shape) = (supernet.operator_on(edge, path), supernet.edge_shape(edge));
        parts.push(match &nodes[usize::from(edge.from)] {
            Some(x) if !absent(e, operator) => {
                let y = network.linear(e, operator, &x.values, &vec![0.0; size(shape)])?.y;
                Scaled::new(y, x.log)
            }
            _ => None,
        });
        if supernet.edges.get(e + 1).is_none_or(|next| next.to != edge.to) {
            let to = usize::from(edge.to);
            let first = e + 1 - parts.len();
            let sizes = (0..parts.len()).map(|i| size(supernet.edge_shape(&supernet.edges[first + i])));
            nodes[to] = match supernet.nodes[to].combine {
                Combine::Concat => concat(&parts, sizes),
                Combine::Sum => parts.drain(..).flatten().fold(None, sum),
            };
            parts.clear();
        }
    }
    // Backwards: dR of every node, and the flow through every edge.
    let mut gradients: Vec<Option<Scaled>> = vec![None; supernet.nodes.len()];
    if let Some(last) = gradients.last_mut() {
        *last = Scaled::new(vec![1.0; supernet.classes() as usize], 0.0);
    }
    let mut logs = Vec::new();
    for (e, edge) in supernet.edges.iter().enumerate().rev() {
        let (from, to) = (usize::from(edge.from), usize::from(edge.to));
        let operator = supernet.operator_on(edge, path);
        let (Some(x), Some(dy)) = (&nodes[from], &gradients[to]) else { continue };
        if absent(e, operator) {
            continue;
        }
        let mut range = 0..dy.values.len();
        if supernet.nodes[to].combine == Combine::Concat {
            let before = supernet.edges[..e].iter().filter(|other| other.to == edge.to);
            let start = before.map(|other| size(supernet.edge_shape(other))).sum();
            range = start..start + size(supernet.edge_shape(edge));
        }
        let linear = network.linear(e, operator, &x.values, &dy.values[range])?;
        logs.push(linear.flow.ln() + x.log + dy.log);
        if let Some(dx) = Scaled::new(linear.dx, dy.log) {
            gradients[from] = sum(gradients[from].take(), dx);
        }
    }
    Ok(log_sum_exp(&logs))
}

fn sum(present: Option<Scaled>, more: Scaled) -> Option<Scaled> {
    match present {
        None => Some(more),
        Some(present) => present.add(&more),
    }
}

/// Parts one after another, absent ones as zeros of their size.
fn concat(parts: &[Option<Scaled>], sizes: impl Iterator<Item = usize>) -> Option<Scaled> {
    let log = parts.iter().flatten().map(|part| part.log).fold(f64::NEG_INFINITY, f64::max);
    let mut values = Vec::new();
    for (part, size) in parts.iter().zip(sizes) {
        match part {
            Some(part) => {
                let scale = (part.log - log).exp() as f32;
                values.extend(part.values.iter().map(|v| scale * v));
            }
            None => values.resize(values.len() + size, 0.0),
        }
    }
    Scaled::new(values, log)
}

/// `log sum exp`, minus infinity of nothing; logs of 0 are minus infinity.
fn log_sum_exp(logs: &[f64]) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// f32 against the same in f32.
    const CLOSE: f64 = 1e-6;

    fn whole(scaled: &Scaled) -> Vec<f64> {
        scaled.values.iter().map(|&v| f64::from(v) * scaled.log.exp()).collect()
    }

    #[test]
    fn scales_are_kept_beside_and_aligned() {
        let a = Scaled::new(vec![1.0, 4.0], 0.0).unwrap();
        let b = Scaled::new(vec![2.0, 8.0], 3f64.ln()).unwrap();
        assert_eq!(a.values, [0.25, 1.0]);
        for (found, expected) in whole(&a.clone().add(&b).unwrap()).iter().zip([7.0, 28.0]) {
            assert!((found - expected).abs() < CLOSE * expected, "{found}");
        }
        let joined = concat(&[Some(a), None, Some(b)], [2, 1, 2].into_iter()).unwrap();
        for (found, expected) in whole(&joined).iter().zip([1.0, 4.0, 0.0, 6.0, 24.0]) {
            assert!((found - expected).abs() < CLOSE * 24.0, "{found}");
        }
        assert_eq!(Scaled::new(vec![0.0; 3], 5.0), None);
        // Far beyond f32, and f64.
        let far = Scaled::new(vec![1.0], 2000.0).unwrap();
        let sum = far.clone().add(&far).unwrap();
        assert!((sum.log - 2000.0 - 2f64.ln()).abs() < CLOSE);
        assert!((log_sum_exp(&[2000.0, 2000.0]) - 2000.0 - 2f64.ln()).abs() < CLOSE);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
    }
}
