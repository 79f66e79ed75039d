//! Mixtures of experts: rows are chosen on the host, and each expert computes all of its rows at once.

use candle_core::{Device, Result, Tensor};
use nanovllm_backend::{Experts, Route, Routing};

use crate::matrix::Matrix;
use crate::rows;
use crate::weight::Weight;

/// The sum of the outputs of each row's experts, `[rows, hidden]`.
pub(crate) fn experts(
    device: &Device,
    x: &Tensor,
    logits: &Tensor,
    routing: &Routing<'_, Matrix>,
    experts: &Experts<'_, Weight, Matrix>,
) -> Result<Tensor> {
    let each = routing.experts_per_row;
    let logits = logits.to_vec2::<f32>()?;
    let factors = routing.factors.map(|factors| factors.data().flatten_all()?.to_vec1::<f32>()).transpose()?;
    let mut routes = vec![Route { expert: 0, weight: 0.0 }; logits.len() * each];
    for (logits, routes) in logits.iter().zip(routes.chunks_exact_mut(each)) {
        routing.choose(logits, factors.as_deref(), routes);
    }
    // Of each expert the routes that lead to it, and where the outputs of each route lie once those of all are stacked.
    let mut outputs = Vec::new();
    let mut places = vec![0u32; routes.len()];
    let mut stacked = 0;
    for (expert, (gate_up, down)) in experts.gate_up.iter().zip(experts.down).enumerate() {
        let mine: Vec<usize> = (0..routes.len()).filter(|&i| routes[i].expert as usize == expert).collect();
        if mine.is_empty() {
            continue;
        }
        for &i in &mine {
            places[i] = stacked;
            stacked += 1;
        }
        let sources: Vec<u32> = mine.iter().map(|i| (i / each) as u32).collect();
        let bias = |bias: Option<&Matrix>| bias.map(|bias| bias.data().narrow(0, expert, 1)).transpose();
        let add = |x: Tensor, bias: Option<Tensor>| bias.map_or(Ok(x.clone()), |bias| x.broadcast_add(&bias));
        let rows = x.index_select(&Tensor::new(sources, device)?, 0)?;
        let gate_up = add(gate_up.forward(&rows)?, bias(experts.gate_up_bias)?)?;
        let gated = rows::activate_and_mul(experts.activation, &gate_up)?;
        outputs.push(add(down.forward(&gated)?, bias(experts.down_bias)?)?);
    }
    let outputs = Tensor::cat(&outputs, 0)?;
    let mut sum: Option<Tensor> = None;
    for rank in 0..each {
        let of_rank = |i: &usize| i % each == rank;
        let places: Vec<u32> = (0..routes.len()).filter(of_rank).map(|i| places[i]).collect();
        let weights: Vec<f32> = (0..routes.len()).filter(of_rank).map(|i| routes[i].weight).collect();
        let output = outputs.index_select(&Tensor::new(places, device)?, 0)?;
        let output = output.broadcast_mul(&Tensor::new(weights, device)?.unsqueeze(1)?)?;
        sum = Some(sum.map_or(Ok(output.clone()), |sum| sum + output)?);
    }
    sum.map_or_else(|| x.zeros_like(), Ok)
}
