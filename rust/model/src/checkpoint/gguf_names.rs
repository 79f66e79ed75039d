//! GGUF tensor names and their Hugging Face counterparts.

/// Modules outside the layers.
const TOP: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Modules of a layer.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The Hugging Face name of a GGUF tensor.
pub(super) fn to_hugging_face(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    if let Some(rest) = module.strip_prefix("blk.") {
        let (layer, module) = rest.split_once('.')?;
        let (_, module) = LAYER.iter().find(|(gguf, _)| *gguf == module)?;
        return Some(format!("model.layers.{layer}.{module}.{kind}"));
    }
    let (_, module) = TOP.iter().find(|(gguf, _)| *gguf == module)?;
    Some(format!("{module}.{kind}"))
}

/// The GGUF name of a Hugging Face tensor.
pub fn from_hugging_face(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    if let Some(rest) = module.strip_prefix("model.layers.") {
        let (layer, module) = rest.split_once('.')?;
        let (module, _) = LAYER.iter().find(|(_, hf)| *hf == module)?;
        return Some(format!("blk.{layer}.{module}.{kind}"));
    }
    let (module, _) = TOP.iter().find(|(_, hf)| *hf == module)?;
    Some(format!("{module}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_both_ways() {
        for (gguf, hf) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.17.attn_q.bias", "model.layers.17.self_attn.q_proj.bias"),
            ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ] {
            assert_eq!(to_hugging_face(gguf).as_deref(), Some(hf));
            assert_eq!(from_hugging_face(hf).as_deref(), Some(gguf));
        }
        assert_eq!(to_hugging_face("rope_freqs.weight"), None);
        assert_eq!(from_hugging_face("model.layers.0.mlp.experts.weight"), None);
    }
}
