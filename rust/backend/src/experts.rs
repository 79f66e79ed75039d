//! Mixtures of experts (Shazeer et al. 2017): which experts a row goes through, and what experts are.

use crate::backend::Backend;
use crate::error::Result;
use crate::rows::Activation;

/// How the rows of a mixture choose their experts.
#[derive(Debug)]
pub struct Routing<'a, T> {
    /// How many experts each row goes through: at least 1, and at most as many as there are.
    pub experts_per_row: usize,
    /// Whether the weights of a row's experts add up to 1: a softmax over their logits alone, which is that over all logits
    /// divided by the sum of the chosen. Otherwise they are the softmax over all.
    pub normalized: bool,
    /// What the weights of each expert are then multiplied by, `[1, experts]`.
    pub factors: Option<&'a T>,
}

/// An expert that a row goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Route {
    /// Its number.
    pub expert: u32,
    /// What its output is multiplied by.
    pub weight: f32,
}

impl<T> Routing<'_, T> {
    /// Chooses the experts of a row by its `logits`, one for each expert: those of the largest, the largest first and of
    /// equal ones the first; a NaN counts as the smallest. `routes` has room for as many as a row goes through. `factors`
    /// are those of [`factors`](Self::factors). Every device that computes on the host chooses by this.
    pub fn choose(&self, logits: &[f32], factors: Option<&[f32]>, routes: &mut [Route]) {
        let key = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        let mut found = 0;
        for (expert, &logit) in (0u32..).zip(logits) {
            let logit = key(logit);
            if found == routes.len() && routes.last().is_none_or(|last| logit <= last.weight) {
                continue;
            }
            found = (found + 1).min(routes.len());
            // Until all are found, a route's weight is its logit.
            let mut at = found - 1;
            while at > 0 && routes[at - 1].weight < logit {
                routes[at] = routes[at - 1];
                at -= 1;
            }
            routes[at] = Route { expert, weight: logit };
        }
        let largest = routes.first().map_or(0.0, |route| route.weight);
        let share = |logit: f32| (logit - largest).exp();
        let total: f32 = if self.normalized {
            routes.iter().map(|route| share(route.weight)).sum()
        } else {
            logits.iter().map(|&logit| share(key(logit))).sum()
        };
        for route in routes {
            let factor = factors.map_or(1.0, |factors| factors[route.expert as usize]);
            route.weight = share(route.weight) / total * factor;
        }
    }
}

/// The experts of a layer: a gated MLP each (Shazeer 2020), all of the same widths.
#[derive(Debug)]
pub struct Experts<'a, W, T> {
    /// Of each expert the projection to gates and values, `[2 intermediate, hidden]`.
    pub gate_up: &'a [W],
    /// Of each expert the projection back, `[hidden, intermediate]`.
    pub down: &'a [W],
    /// What is added to the gates and values of each expert, `[experts, 2 intermediate]`.
    pub gate_up_bias: Option<&'a T>,
    /// What is added to the outputs of each expert, `[experts, hidden]`.
    pub down_bias: Option<&'a T>,
    /// What gates go through.
    pub activation: Activation,
}

/// What a mixture works in: a row for each expert that a row of its input goes through.
pub struct ExpertRoom<T> {
    /// Inputs in the order of their experts, `[rows, hidden]`.
    pub inputs: T,
    /// Gates and values, `[rows, 2 intermediate]`.
    pub gate_up: T,
    /// Their activation, `[rows, intermediate]`.
    pub activation: T,
    /// Outputs, `[rows, hidden]`.
    pub outputs: T,
}

impl<T> ExpertRoom<T> {
    /// Room of `rows` rows; [`Backend::expert_room`] is what callers ask.
    ///
    /// # Errors
    /// Those of [`Backend::tensor`].
    pub fn new<B: Backend<Tensor = T>>(backend: &B, rows: usize, hidden: usize, intermediate: usize) -> Result<Self> {
        Ok(Self {
            inputs: backend.tensor(rows, hidden)?,
            gate_up: backend.tensor(rows, 2 * intermediate)?,
            activation: backend.tensor(rows, intermediate)?,
            outputs: backend.tensor(rows, hidden)?,
        })
    }
}

// The drawn cases need what the conformance suite needs.
#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes(logits: &[f32], count: usize, normalized: bool, factors: Option<&[f32]>) -> Vec<Route> {
        let mut routes = vec![Route { expert: u32::MAX, weight: f32::NAN }; count];
        Routing::<()> { experts_per_row: count, normalized, factors: None }.choose(logits, factors, &mut routes);
        routes
    }

    proptest! {
        /// Against a sort of all experts, and a softmax in f64.
        #[test]
        fn the_largest_are_chosen(
            logits in prop::collection::vec(prop_oneof![-4i8..4, Just(100)], 1..40), count in 1usize..9, normalized: bool,
        ) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let count = count.min(logits.len());
            let factors: Vec<f32> = (0..logits.len()).map(|i| 0.5 + i as f32).collect();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let share = |i: &usize| f64::from(logits[*i] - logits[order[0]]).exp();
            let total: f64 = if normalized { order[..count].iter().map(share).sum() } else { order.iter().map(share).sum() };
            for (route, i) in routes(&logits, count, normalized, Some(&factors)).iter().zip(&order) {
                prop_assert_eq!(route.expert as usize, *i);
                let expected = share(i) / total * f64::from(factors[*i]);
                prop_assert!((f64::from(route.weight) - expected).abs() <= expected * 1e-5 + 1e-38, "{:?}, not {}", route, expected);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_comes_last() {
        let chosen = |logits: &[f32]| routes(logits, 2, true, None).iter().map(|r| r.expert).collect::<Vec<_>>();
        assert_eq!(chosen(&[f32::NAN, 1.0, 2.0]), [2, 1]);
        assert_eq!(chosen(&[f32::NAN, f32::NAN, -3.0]), [2, 0]);
        assert_eq!(chosen(&[f32::NAN; 3]), [0, 1], "there are always as many");
    }
}
