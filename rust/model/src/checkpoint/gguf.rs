//! A GGUF file as a checkpoint.

use std::borrow::Cow;
use std::path::Path;

use nanovllm_backend::DType;
use nanovllm_gguf::GgufFile;

use super::{StoredTensor, gguf_names};
use crate::config::{Architecture, ModelConfig};
use crate::error::Result;

/// A GGUF file as a checkpoint.
pub struct GgufCheckpoint {
    file: GgufFile,
    config: ModelConfig,
}

impl GgufCheckpoint {
    /// Opens the file at `path`; any shard of a split model leads to the others.
    ///
    /// # Errors
    /// What is wrong with it, or with the configuration it holds.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let config = ModelConfig::from_gguf(&file)?;
        Ok(Self { file, config })
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn names(&self) -> Vec<String> {
        // The rotary factors are part of the configuration.
        let weights = self.file.tensors().iter().filter(|t| t.name != "rope_freqs.weight");
        weights.map(|t| gguf_names::to_hugging_face(&t.name).unwrap_or_else(|| t.name.clone())).collect()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let view = self.file.tensor(&gguf_names::from_hugging_face(name)?)?;
        let mut shape: Vec<usize> = view.dims.iter().rev().copied().collect();
        // A vector may be stored with trailing dimensions of one.
        while shape.len() > 1 && shape[0] == 1 {
            shape.remove(0);
        }
        let tensor = StoredTensor { name: view.name, dtype: view.dtype, shape, data: Cow::Borrowed(view.data) };
        Some(match self.permuted_heads(name) {
            Some(heads) => restore_halves(tensor, heads, self.config.head_dim),
            None => tensor,
        })
    }

    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        Some(self.file.tensor(&gguf_names::from_hugging_face(name)?)?.dtype)
    }

    pub(super) fn check(&self, name: &str) -> Result<()> {
        gguf_names::from_hugging_face(name).map_or(Ok(()), |name| Ok(self.file.check(&name)?))
    }

    pub(super) fn release(&self, name: &str) {
        if let Some(view) = self.file.tensor(name) {
            self.file.release(&view);
        }
    }

    /// Llama files keep the rows of q and k in rotary pairs; how many heads the tensor has if it is one of them.
    fn permuted_heads(&self, name: &str) -> Option<usize> {
        if self.config.architecture != Architecture::Llama {
            return None;
        }
        if name.contains("self_attn.q_proj.") {
            Some(self.config.num_attention_heads)
        } else if name.contains("self_attn.k_proj.") {
            Some(self.config.num_key_value_heads)
        } else {
            None
        }
    }
}

/// Undoes the interleaving of rotary pairs: stored row `2 j + i` of a head is row `i * head_dim / 2 + j`. Whole rows move, so
/// it holds for quantised types too. A tensor of another shape is left as it is, for the shape check to report.
fn restore_halves(tensor: StoredTensor<'_>, heads: usize, head_dim: usize) -> StoredTensor<'_> {
    let rows = heads * head_dim;
    if tensor.shape.first() != Some(&rows) || !tensor.data.len().is_multiple_of(rows) {
        return tensor;
    }
    let row_bytes = tensor.data.len() / rows;
    let mut data = Vec::with_capacity(tensor.data.len());
    for head in 0..heads {
        for row in 0..head_dim {
            let (i, j) = (row / (head_dim / 2), row % (head_dim / 2));
            let stored = head * head_dim + 2 * j + i;
            data.extend_from_slice(&tensor.data[stored * row_bytes..(stored + 1) * row_bytes]);
        }
    }
    StoredTensor { data: Cow::Owned(data), ..tensor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        // Two heads of four rows of two bytes: stored pairs (0, 2), (1, 3) of each head.
        let stored: Vec<u8> = [0u8, 2, 1, 3, 4, 6, 5, 7].iter().flat_map(|&r| [r, r + 100]).collect();
        let tensor = StoredTensor { name: "q", dtype: DType::F16, shape: vec![8, 1], data: Cow::Borrowed(&stored) };
        let rows: Vec<u8> = restore_halves(tensor, 2, 4).data.chunks(2).map(|r| r[0]).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
