//! Linear layers: projections that are stored apart and run as one.

use nanovllm_backend::{Backend, HeadLayout};

use crate::error::Result;
use crate::weights::Weights;

/// Which stored projections a packed module is made of, in order: nano-vLLM's `packed_modules_mapping`.
pub(crate) const PACKED_MODULES: [(&str, &[&str]); 2] =
    [("qkv_proj", &["q_proj", "k_proj", "v_proj"]), ("gate_up_proj", &["gate_proj", "up_proj"])];

/// `y = x @ weight^T (+ bias)`.
pub(crate) struct Linear<B: Backend> {
    weight: B::Weight,
    bias: Option<B::Tensor>,
}

impl<B: Backend> Linear<B> {
    /// A layer whose rows come from `shards` of the packed module at the end of `prefix`, each of its own number of rows.
    fn packed(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        input_size: usize,
        output_sizes: &[usize],
        bias: bool,
    ) -> Result<Self> {
        let mut prefixes = vec![prefix.to_owned()];
        for (module, shards) in PACKED_MODULES {
            if let Some(parent) = prefix.strip_suffix(module) {
                prefixes = shards.iter().map(|shard| format!("{parent}{shard}")).collect();
            }
        }
        let names = |kind: &str| -> Vec<(String, usize)> {
            prefixes.iter().map(|p| format!("{p}.{kind}")).zip(output_sizes.iter().copied()).collect()
        };
        let weight = weights.stacked(&names("weight"), input_size)?;
        let bias = if bias { Some(weights.stacked_vector(&names("bias"))?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `[rows, inputs] -> [rows, outputs]`.
    pub(crate) fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.linear(x, &self.weight, self.bias.as_ref(), out);
    }
}

/// q, k and v as one projection.
pub(crate) struct QkvParallelLinear;

impl QkvParallelLinear {
    pub(crate) fn load<B: Backend>(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        hidden_size: usize,
        heads: &HeadLayout,
        bias: bool,
    ) -> Result<Linear<B>> {
        Linear::packed(weights, prefix, hidden_size, &[heads.q_size(), heads.kv_size(), heads.kv_size()], bias)
    }
}

/// Several projections of the same input as one.
pub(crate) struct MergedColumnParallelLinear;

impl MergedColumnParallelLinear {
    pub(crate) fn load<B: Backend>(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        input_size: usize,
        output_sizes: &[usize],
        bias: bool,
    ) -> Result<Linear<B>> {
        Linear::packed(weights, prefix, input_size, output_sizes, bias)
    }
}

/// A projection whose input would be split over tensor-parallel ranks.
pub(crate) struct RowParallelLinear;

impl RowParallelLinear {
    pub(crate) fn load<B: Backend>(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        input_size: usize,
        output_size: usize,
        bias: bool,
    ) -> Result<Linear<B>> {
        Linear::packed(weights, prefix, input_size, &[output_size], bias)
    }
}
