//! A Hugging Face checkpoint as GGUF stores it: names, the order of rows, tensors that follow from the configuration.

use std::borrow::Cow;

use nanovllm_backend::DType;

use crate::checkpoint::safetensors::SafeTensorsCheckpoint;
use crate::config::gguf::ROPE_TENSORS;
use crate::config::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};
use crate::model_config::ModelConfig;

/// A tensor of a GGUF file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedTensor {
    /// The tensor's name in GGUF.
    pub name: String,
    /// The tensor's name in the checkpoint.
    pub stored_name: String,
    /// The element type, the same in both.
    pub dtype: DType,
    /// The size of each dimension, innermost first, as GGUF writes them.
    pub dims: Vec<usize>,
}

impl SafeTensorsCheckpoint {
    /// Every tensor that a GGUF file of this model has, in the order of a forward pass; [`gguf_data`](Self::gguf_data)
    /// gives the bytes.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for a tensor that has no place in GGUF.
    pub fn gguf_tensors(&self) -> Result<Vec<ExportedTensor>> {
        let table = self.config().family.config().tensor_table();
        let tied = self.config().base.tie_word_embeddings;
        let mut tensors = Vec::new();
        for stored_name in self.names() {
            // A copy of the embedding, and a table that follows from the configuration.
            if (tied && stored_name == "lm_head.weight") || stored_name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            let (Some(name), Some(stored)) = (table.to_gguf(&stored_name), self.stored(&stored_name)) else {
                return Err(LoadError::Unsupported(format!("tensor {stored_name:?} has no place in a GGUF file")));
            };
            let dims = stored.shape.iter().rev().copied().collect();
            let dtype = table.used_dtype(&stored_name, stored.dtype);
            tensors.push(ExportedTensor { name, stored_name, dtype, dims });
        }
        tensors.sort_by_cached_key(|tensor| place(&tensor.name));
        Ok(tensors)
    }

    /// The bytes of the tensor stored under this name, in GGUF's order; `None` if there is none.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] or [`LoadError::Io`] naming the file, where it is shorter than when it was opened.
    pub fn gguf_data(&self, stored_name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let row_order = self.config().family.config().tensor_table().row_order(stored_name);
        let tensor = self.tensor(stored_name)?;
        Ok(tensor.map(|tensor| row_order.to_gguf(tensor, &self.config().base).data))
    }
}

impl ModelConfig {
    /// The tensors in which GGUF stores a rotary scaling that its metadata cannot say, by name: divisors of frequencies.
    ///
    /// # Errors
    /// Those of [`RopeConfig::inverse_frequencies`].
    pub fn rope_tensors(&self) -> Result<Vec<(&'static str, Vec<f32>)>> {
        let [freqs, long, short] = ROPE_TENSORS;
        let rope = &self.base.rope;
        match &rope.scaling {
            RopeScaling::Factors(factors) => Ok(vec![(freqs, factors.clone())]),
            RopeScaling::LongRope { short: at_short, long: at_long, .. } => {
                Ok(vec![(long, at_long.clone()), (short, at_short.clone())])
            }
            RopeScaling::Llama3 { .. } => {
                let frequencies =
                    |rope: &RopeConfig| rope.inverse_frequencies(self.base.head_dim, self.base.max_position_embeddings);
                let (scaled, _) = frequencies(rope)?;
                let (plain, _) = frequencies(&RopeConfig { scaling: RopeScaling::None, ..rope.clone() })?;
                let factors = plain.iter().zip(&scaled).map(|(plain, scaled)| (plain / scaled) as f32);
                Ok(vec![(freqs, factors.collect())])
            }
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Yarn { .. } => Ok(Vec::new()),
        }
    }
}

/// What tensors are sorted by: the embedding comes first, then the layers by number, then the rest.
fn place(name: &str) -> (usize, usize, String) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse().ok());
    match layer {
        Some(layer) => (1, layer, name.to_owned()),
        None => (if name.starts_with("token_embd") { 0 } else { 2 }, 0, name.to_owned()),
    }
}
