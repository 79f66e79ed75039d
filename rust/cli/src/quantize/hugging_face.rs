//! What a Hugging Face checkpoint looks like in GGUF: names, the order of rows, tensors that follow from the configuration.

use std::borrow::Cow;

use nanovllm_gguf::GgmlType;
use nanovllm_model::{Architecture, ModelConfig, RopeScaling, SafeTensorsCheckpoint, StoredTensor, gguf_tensor_name};

use super::source::SourceTensor;
use crate::Error;

/// GGUF's name of the architecture.
pub(crate) fn architecture(config: &ModelConfig) -> Result<&'static str, Error> {
    match config.architecture {
        Architecture::Qwen3 => Ok("qwen3"),
        Architecture::Llama => Ok("llama"),
        _ => Err(Error::Option("this architecture cannot be written to GGUF yet".to_owned())),
    }
}

/// The tensors under GGUF's names, in the order of a forward pass, each with the name it has in the checkpoint. Norms and
/// biases become F32, as llama.cpp wants them.
pub(crate) fn tensors(checkpoint: &SafeTensorsCheckpoint) -> Result<Vec<(SourceTensor, String)>, Error> {
    let tied = checkpoint.config().tie_word_embeddings;
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        // A copy of the embedding, and a table that follows from the configuration.
        if (tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let unknown = || Error::Tensor { name: name.clone(), reason: "has no place in a GGUF file".to_owned() };
        let gguf = gguf_tensor_name(&name).ok_or_else(unknown)?;
        let stored = checkpoint.tensor(&name).ok_or_else(unknown)?;
        let dims = stored.shape.iter().rev().copied().collect();
        tensors.push((SourceTensor { name: gguf, dtype: stored.dtype, dims }, name));
    }
    tensors.sort_by_cached_key(|(tensor, _)| place(&tensor.name));
    Ok(tensors)
}

/// Embedding, layers by number, the rest.
fn place(name: &str) -> (usize, usize, String) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse().ok());
    match layer {
        Some(layer) => (1, layer, name.to_owned()),
        None => (if name.starts_with("token_embd") { 0 } else { 2 }, 0, name.to_owned()),
    }
}

/// The bytes of a tensor in GGUF's order: llama.cpp wants the halves of Llama's query and key heads as neighbours.
pub(crate) fn arrange<'a>(config: &ModelConfig, tensor: &'a StoredTensor<'a>) -> Cow<'a, [u8]> {
    let heads = match config.architecture {
        Architecture::Llama if tensor.name.contains("self_attn.q_proj.") => config.num_attention_heads,
        Architecture::Llama if tensor.name.contains("self_attn.k_proj.") => config.num_key_value_heads,
        _ => return Cow::Borrowed(&tensor.data),
    };
    let (head_dim, rows) = (config.head_dim, heads * config.head_dim);
    // A tensor of another shape would not load either; the loader says so better.
    if tensor.shape.first() != Some(&rows) || !tensor.data.len().is_multiple_of(rows) {
        return Cow::Borrowed(&tensor.data);
    }
    let row_bytes = tensor.data.len() / rows;
    let mut data = Vec::with_capacity(tensor.data.len());
    for head in 0..heads {
        for stored in 0..head_dim {
            let (pair, half) = (stored / 2, stored % 2);
            let row = head * head_dim + half * head_dim / 2 + pair;
            data.extend_from_slice(&tensor.data[row * row_bytes..(row + 1) * row_bytes]);
        }
    }
    Cow::Owned(data)
}

/// Llama 3's rotary scaling, which GGUF stores as a divisor for each frequency.
pub(crate) fn rope_factors(config: &ModelConfig) -> Result<Option<(SourceTensor, Vec<u8>)>, Error> {
    if !matches!(config.rope.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Factors(_)) {
        return Ok(None);
    }
    let (scaled, _) = config.rope.inverse_frequencies(config.head_dim)?;
    let plain = nanovllm_model::RopeConfig { theta: config.rope.theta, scaling: RopeScaling::None };
    let (plain, _) = plain.inverse_frequencies(config.head_dim)?;
    let bytes = plain.iter().zip(&scaled).flat_map(|(plain, scaled)| ((plain / scaled) as f32).to_le_bytes()).collect();
    let name = "rope_freqs.weight".to_owned();
    Ok(Some((SourceTensor { name, dtype: GgmlType::F32, dims: vec![plain.len()] }, bytes)))
}
