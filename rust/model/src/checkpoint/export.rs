//! A Hugging Face checkpoint as GGUF stores it: names, the order of rows, tensors that follow from the configuration.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use nanovllm_backend::DType;

use crate::checkpoint::safetensors::{SafeTensorsCheckpoint, TensorLayout};
use crate::config::gguf::ROPE_TENSORS;
use crate::config::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};
use crate::model_config::ModelConfig;

/// A tensor of a GGUF file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedTensor {
    /// The tensor's name in GGUF.
    pub name: String,
    /// The names in the checkpoint of the tensors that it is made of, one after the other: one, or one for each expert.
    pub stored_names: Vec<String>,
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
        let mut tensors: Vec<ExportedTensor> = Vec::new();
        let mut stacked: HashMap<String, BTreeMap<usize, String>> = HashMap::new();
        for stored_name in self.names() {
            // A copy of the embedding, and a table that follows from the configuration.
            if (tied && stored_name == "lm_head.weight") || stored_name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            let (Some(name), Some(stored)) = (table.to_gguf(&stored_name), self.layout(&stored_name)) else {
                return Err(LoadError::Unsupported(format!("tensor {stored_name:?} has no place in a GGUF file")));
            };
            let dims: Vec<usize> = stored.shape.iter().rev().copied().collect();
            let dtype = table.used_dtype(&stored_name, stored.dtype);
            if let Some(expert) = table.expert(&stored_name) {
                let experts = stacked.entry(name.clone()).or_default();
                if let Some(first) = experts.insert(expert, stored_name.clone()) {
                    let reason = format!("{first:?} and {stored_name:?} are of one expert");
                    return Err(LoadError::Unsupported(reason));
                }
                if experts.len() > 1 {
                    continue;
                }
                tensors.push(ExportedTensor { name, stored_names: Vec::new(), dtype, dims });
            } else {
                tensors.push(ExportedTensor { name, stored_names: vec![stored_name], dtype, dims });
            }
        }
        for tensor in &mut tensors {
            let Some(experts) = stacked.remove(&tensor.name) else { continue };
            for (number, (&expert, stored)) in experts.iter().enumerate() {
                let same = |s: TensorLayout| s.dtype == tensor.dtype && s.shape.iter().rev().eq(&tensor.dims);
                if expert != number || !self.layout(stored).is_some_and(same) {
                    let reason = format!("{stored:?} does not fit with the other experts in {:?}", tensor.name);
                    return Err(LoadError::Unsupported(reason));
                }
            }
            tensor.dims.push(experts.len());
            tensor.stored_names = experts.into_values().collect();
        }
        tensors.sort_by_cached_key(|tensor| place(&tensor.name));
        Ok(tensors)
    }

    /// The bytes of the tensors stored under these names, one after the other, in GGUF's order; `None` if one is missing.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] or [`LoadError::Io`] naming the file, where it is shorter than when it was opened.
    pub fn gguf_data(&self, stored_names: &[String]) -> Result<Option<Cow<'_, [u8]>>> {
        let table = self.config().family.config().tensor_table();
        let mut all: Option<Cow<'_, [u8]>> = None;
        for name in stored_names {
            let Some(tensor) = self.tensor(name)? else { return Ok(None) };
            let data = table.row_order(name).to_gguf(tensor, &self.config().base).data;
            match &mut all {
                None => all = Some(data),
                Some(all) => all.to_mut().extend_from_slice(&data),
            }
        }
        Ok(all)
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
