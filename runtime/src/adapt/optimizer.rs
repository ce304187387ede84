//! Optimisers of gamma and beta. Only the BatchNorms of the sampled path are touched in a step.

use serde::{Deserialize, Serialize};

use crate::parameters::{BnParameters, Layout};

/// Which rule turns gradients into steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// Stochastic gradient descent with momentum: `v = momentum v + g; p -= rate v`
    /// (the form of PyTorch's SGD without dampening).
    Sgd {
        /// Share of the last step that is kept, 0 to 1.
        momentum: f32,
    },
    /// Adam (Kingma & Ba 2015, algorithm 1), with a step count per BatchNorm.
    Adam {
        /// Decay of the mean.
        beta1: f32,
        /// Decay of the mean square.
        beta2: f32,
        /// Added to the root of the mean square.
        epsilon: f32,
    },
}

/// Parameters' companions: momenta (or means) and, for Adam, mean squares and step counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    rule: Rule,
    /// Momentum (SGD) or running mean of gradients (Adam).
    pub first: BnParameters,
    /// Running mean of squared gradients; empty for SGD.
    pub second: BnParameters,
    /// Steps that each BatchNorm has taken part in; empty for SGD.
    pub steps: Vec<u32>,
}

impl Optimizer {
    /// A fresh optimiser.
    pub fn new(rule: Rule, layout: &Layout) -> Self {
        let empty = BnParameters { gamma: Vec::new(), beta: Vec::new() };
        let (second, steps) = match rule {
            Rule::Sgd { .. } => (empty, Vec::new()),
            Rule::Adam { .. } => (BnParameters::zeros(layout), vec![0; layout.slots().len()]),
        };
        Self { rule, first: BnParameters::zeros(layout), second, steps }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Takes a step of `rate` along the gradients of the given slots, scaled by `scale` (clipping).
    pub fn step(
        &mut self,
        layout: &Layout,
        slots: &[usize],
        parameters: &mut BnParameters,
        gradients: &BnParameters,
        rate: f32,
        scale: f32,
    ) {
        for &slot in slots {
            let range = layout.slots()[slot].range.clone();
            let halves = [
                (&mut parameters.gamma, &gradients.gamma, &mut self.first.gamma, &mut self.second.gamma),
                (&mut parameters.beta, &gradients.beta, &mut self.first.beta, &mut self.second.beta),
            ];
            if let Some(count) = self.steps.get_mut(slot) {
                *count = count.saturating_add(1);
            }
            for (p, g, first, second) in halves {
                let (p, g, first) = (&mut p[range.clone()], &g[range.clone()], &mut first[range.clone()]);
                match self.rule {
                    Rule::Sgd { momentum } => {
                        for ((p, g), v) in p.iter_mut().zip(g).zip(first) {
                            *v = momentum * *v + scale * g;
                            *p -= rate * *v;
                        }
                    }
                    Rule::Adam { beta1, beta2, epsilon } => {
                        let t = self.steps[slot] as i32;
                        let (c1, c2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
                        for (((p, g), m), v) in p.iter_mut().zip(g).zip(first).zip(&mut second[range.clone()]) {
                            let g = scale * g;
                            *m = beta1 * *m + (1.0 - beta1) * g;
                            *v = beta2 * *v + (1.0 - beta2) * g * g;
                            *p -= rate * (*m / c1) / ((*v / c2).sqrt() + epsilon);
                        }
                    }
                }
            }
        }
    }
}

/// Euclidean norm of the gradients of the given slots, accumulated in f64.
pub fn gradient_norm(layout: &Layout, slots: &[usize], gradients: &BnParameters) -> f64 {
    let square = |values: &[f32]| values.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    slots
        .iter()
        .map(|&slot| {
            let range = layout.slots()[slot].range.clone();
            square(&gradients.gamma[range.clone()]) + square(&gradients.beta[range])
        })
        .sum::<f64>()
        .sqrt()
}

/// Learning rate at a step: linear warm-up, then half a cosine down to zero
/// (Loshchilov & Hutter 2017, equation 5, without restarts).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Rate at the end of the warm-up.
    pub peak: f32,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// Whether the rate falls along a cosine, or stays.
    pub cosine: bool,
}

impl Schedule {
    /// Rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        if !self.cosine {
            return self.peak;
        }
        let done = (step - self.warmup) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        (f64::from(self.peak) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())) as f32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::chain;

    /// Rounding of a few float32 operations a step, relative to parameters near 1.
    const CLOSE: f64 = 1e-5;

    fn gradient(step: u32, i: usize) -> f32 {
        ((step as usize * 31 + i * 17) as f32 * 0.7).sin() * 10f32.powi(i as i32 % 5 - 3)
    }

    /// One parameter in f64, as the papers write it.
    #[derive(Clone, Copy, Default)]
    struct Naive {
        parameter: f64,
        first: f64,
        second: f64,
        steps: i32,
    }

    impl Naive {
        fn step(&mut self, rule: Rule, gradient: f64, rate: f64) {
            match rule {
                Rule::Sgd { momentum } => {
                    self.first = f64::from(momentum) * self.first + gradient;
                    self.parameter -= rate * self.first;
                }
                Rule::Adam { beta1, beta2, epsilon } => {
                    let [beta1, beta2, epsilon] = [beta1, beta2, epsilon].map(f64::from);
                    self.steps += 1;
                    self.first = beta1 * self.first + (1.0 - beta1) * gradient;
                    self.second = beta2 * self.second + (1.0 - beta2) * gradient * gradient;
                    let mean = self.first / (1.0 - beta1.powi(self.steps));
                    let square = self.second / (1.0 - beta2.powi(self.steps));
                    self.parameter -= rate * mean / (square.sqrt() + epsilon);
                }
            }
        }
    }

    #[test]
    fn both_rules_are_what_their_formulas_say_for_slots_that_take_turns() {
        const STEPS: u32 = 12;
        let layout = Layout::new(&chain(2));
        let rules = [Rule::Sgd { momentum: 0.9 }, Rule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }];
        for (rule, scale) in rules.into_iter().flat_map(|rule| [(rule, 1.0), (rule, 0.25)]) {
            let mut optimizer = Optimizer::new(rule, &layout);
            let mut parameters = BnParameters::initial(&layout);
            let start = |&p: &f32| Naive { parameter: f64::from(p), ..Naive::default() };
            let mut gamma: Vec<Naive> = parameters.gamma.iter().map(start).collect();
            let mut beta: Vec<Naive> = parameters.beta.iter().map(start).collect();
            for step in 0..STEPS {
                // Some BatchNorms take part in every step, some in every second or third.
                let slots: Vec<usize> =
                    (0..layout.slots().len()).filter(|s| (step as usize).is_multiple_of(s % 3 + 1)).collect();
                let mut gradients = BnParameters::zeros(&layout);
                gradients.gamma.iter_mut().enumerate().for_each(|(i, g)| *g = gradient(step, i));
                gradients.beta.iter_mut().enumerate().for_each(|(i, g)| *g = gradient(step, i + 1000));
                let rate = 0.1 / (step + 1) as f32;
                optimizer.step(&layout, &slots, &mut parameters, &gradients, rate, scale);
                for i in slots.iter().flat_map(|&slot| layout.slots()[slot].range.clone()) {
                    let scaled = |g: f32| f64::from(scale) * f64::from(g);
                    gamma[i].step(rule, scaled(gradients.gamma[i]), f64::from(rate));
                    beta[i].step(rule, scaled(gradients.beta[i]), f64::from(rate));
                }
                for (found, naive) in [(&parameters.gamma, &gamma), (&parameters.beta, &beta)] {
                    for (i, (&found, naive)) in found.iter().zip(naive).enumerate() {
                        let error = (f64::from(found) - naive.parameter).abs();
                        assert!(error < CLOSE, "{rule:?}, scale {scale}, step {step}, channel {i}: off by {error:e}");
                    }
                }
            }
        }
    }

    /// Worked out by hand: the first step of Adam is the rate, whatever the gradient's size.
    #[test]
    fn the_first_steps_of_adam_are_literal_numbers() {
        let layout = Layout::new(&chain(1));
        let rule = Rule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let mut optimizer = Optimizer::new(rule, &layout);
        let mut parameters = BnParameters::initial(&layout);
        let mut gradients = BnParameters::zeros(&layout);
        // m = 0.3, v = 0.009, corrected 3 and 9: 1 - 0.1 * 3 / 3. Then m = 0.17, v = 0.009991, corrected by 0.19
        // and 0.001999: 0.9 - 0.1 * 0.894737 / 2.235622.
        for (gradient, expected) in [(3.0, 0.9), (-1.0, 0.859_978_2)] {
            gradients.gamma[0] = gradient;
            optimizer.step(&layout, &[0], &mut parameters, &gradients, 0.1, 1.0);
            assert!((f64::from(parameters.gamma[0]) - expected).abs() < CLOSE, "{} {expected}", parameters.gamma[0]);
        }
        assert_eq!(optimizer.steps[..2], [2, 0]);
    }

    #[test]
    fn the_norm_is_that_of_the_slots_alone() {
        let layout = Layout::new(&chain(2));
        let mut gradients = BnParameters::zeros(&layout);
        let (first, other) = (layout.slots()[0].range.start, layout.slots()[1].range.start);
        (gradients.gamma[first], gradients.beta[first], gradients.gamma[other]) = (3.0, -4.0, 100.0);
        assert_eq!(gradient_norm(&layout, &[0], &gradients), 5.0);
        gradients.gamma[first] = 3e30;
        assert!(gradient_norm(&layout, &[0], &gradients).is_finite(), "float32 would overflow");
    }

    #[test]
    fn schedule_warms_up_then_falls_to_zero() {
        let schedule = Schedule { peak: 2.0, warmup: 4, total: 12, cosine: true };
        assert_eq!((0..4).map(|s| schedule.rate(s)).collect::<Vec<_>>(), [0.5, 1.0, 1.5, 2.0]);
        assert_eq!(schedule.rate(4), 2.0);
        assert!((schedule.rate(8) - 1.0).abs() < 1e-6);
        assert_eq!(schedule.rate(12), 0.0);
        assert_eq!(schedule.rate(99), 0.0);
        assert_eq!(Schedule { cosine: false, ..schedule }.rate(99), 2.0);
        assert_eq!(Schedule { warmup: 0, total: 0, ..schedule }.rate(0), 2.0);
    }
}
