//! Linear layers, cut over tensor-parallel ranks as nano-vLLM cuts them; projections of the same input run as one.

use std::sync::Arc;

use nanovllm_backend::{Backend, HeadLayout};

use crate::error::Result;
use crate::sharding::{ShardError, Sharding, TpRank, divide};
use crate::weights::Weights;

/// Which stored projections a packed module is made of, in order: nano-vLLM's `packed_modules_mapping`.
const PACKED_MODULES: [(&str, &[&str]); 2] =
    [("qkv_proj", &["q_proj", "k_proj", "v_proj"]), ("gate_up_proj", &["gate_proj", "up_proj"])];

/// A linear layer: `y = x @ weight^T (+ bias)`.
pub struct Linear<B: Backend> {
    weight: Arc<B::Weight>,
    bias: Option<Arc<B::Tensor>>,
}

impl<B: Backend> Linear<B> {
    /// A layer of a packed weight `[outputs, inputs]` and a bias `[1, outputs]`.
    pub fn new(weight: Arc<B::Weight>, bias: Option<Arc<B::Tensor>>) -> Self {
        Self { weight, bias }
    }

    /// Loads the layer whose tensors' names begin with `prefix`. Projections that run as one may be stored as one too.
    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, sharding: LinearSharding) -> Result<Self> {
        let (modules, sharding) = stored(weights, prefix, sharding);
        Self::load_modules(weights, &modules, sharding)
    }

    /// Loads the weight of an expert's layer in the same way.
    pub(crate) fn load_expert(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        sharding: LinearSharding,
    ) -> Result<B::Weight> {
        let (modules, sharding) = stored(weights, prefix, sharding);
        weights.expert(&names(&modules, "weight"), sharding.weight)
    }

    /// Loads the layer that is made of these modules, one for each shard; a module may stand there several times.
    pub(crate) fn load_modules(
        weights: &mut Weights<'_, B>,
        modules: &[String],
        sharding: LinearSharding,
    ) -> Result<Self> {
        let weight = weights.matrix(&names(modules, "weight"), sharding.weight)?;
        let bias = sharding.bias.map(|bias| weights.vector(&names(modules, "bias"), bias)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `[rows, inputs] -> [rows, outputs]`.
    pub fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.linear(x, &self.weight, self.bias.as_deref(), out);
    }
}

/// The modules that the one at `prefix` is stored as, one for each shard, and how it is then cut.
fn stored<B: Backend>(
    weights: &Weights<'_, B>,
    prefix: &str,
    sharding: LinearSharding,
) -> (Vec<String>, LinearSharding) {
    if weights.has(&format!("{prefix}.weight")) {
        return (vec![prefix.to_owned(); sharding.weight.shards().len()], sharding.fused());
    }
    (stored_modules(prefix), sharding)
}

fn names(modules: &[String], kind: &str) -> Vec<String> {
    modules.iter().map(|module| format!("{module}.{kind}")).collect()
}

/// The modules that the one at `prefix` is stored as: several where it is a packed one.
fn stored_modules(prefix: &str) -> Vec<String> {
    for (module, shards) in PACKED_MODULES {
        if let Some(parent) = prefix.strip_suffix(module) {
            return shards.iter().map(|shard| format!("{parent}{shard}")).collect();
        }
    }
    vec![prefix.to_owned()]
}

/// How the weight and the bias of a linear layer are cut, seen from one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinearSharding {
    /// The rank's weight, `[outputs, inputs]`.
    pub(crate) weight: Sharding,
    /// The rank's bias, `[outputs]`; `None` for a layer without one.
    pub(crate) bias: Option<Sharding>,
}

impl LinearSharding {
    /// [`Sharding::fused`] of both.
    fn fused(self) -> Self {
        Self { weight: self.weight.fused(), bias: self.bias.map(Sharding::fused) }
    }

    /// Projections of `outputs` each, stacked; a rank has its part of the outputs of each.
    pub(crate) fn column_parallel(inputs: usize, outputs: &[usize], bias: bool, tp: TpRank) -> Result<Self> {
        let sharding = |cols| Sharding::by_rows(outputs, cols, tp);
        Ok(Self { weight: sharding(Some(inputs))?, bias: bias.then(|| sharding(None)).transpose()? })
    }

    /// q, k and v of `heads`, the heads of all ranks together; a rank has its part of the heads of each.
    pub(crate) fn qkv_parallel(hidden_size: usize, heads: &HeadLayout, bias: bool, tp: TpRank) -> Result<Self> {
        // Heads must divide, which is more than that their widths do.
        for count in [heads.num_heads, heads.num_kv_heads] {
            divide(count, tp.size())?;
            count.checked_mul(heads.head_dim).ok_or(ShardError::Overflow)?;
        }
        Self::column_parallel(hidden_size, &[heads.q_size(), heads.kv_size(), heads.kv_size()], bias, tp)
    }

    /// A rank has its part of the inputs, and the whole bias: one rank adds it before the sum over ranks.
    pub(crate) fn row_parallel(inputs: usize, outputs: usize, bias: bool, tp: TpRank) -> Result<Self> {
        let weight = Sharding::by_cols(outputs, inputs, tp)?;
        Ok(Self { weight, bias: bias.then(|| Sharding::replicated(outputs, None)).transpose()? })
    }
}
