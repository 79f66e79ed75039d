//! How a family's tensors are called and lie in GGUF: one table for what loads a GGUF file and for what writes one.

use std::borrow::Cow;

use crate::config::base::BaseConfig;
use crate::stored_tensor::StoredTensor;

/// How the rows of a tensor lie in GGUF, compared with Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// The same.
    Same,
    /// In each head the rows of a rotary pair are neighbours: row `i * head_dim / 2 + j` is stored as row `2 j + i`. Whole rows
    /// move, so it holds for quantised types too.
    RotaryPairs,
}

/// One module's names, without the `.weight` or `.bias` that follows, and its arrangement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorRule {
    /// Whether it is one of each layer: names then follow the layer's own.
    in_layer: bool,
    gguf: &'static str,
    hugging_face: &'static str,
    arrangement: Arrangement,
}

impl TensorRule {
    /// A module outside the layers.
    pub(crate) const fn top(gguf: &'static str, hugging_face: &'static str) -> Self {
        Self { in_layer: false, gguf, hugging_face, arrangement: Arrangement::Same }
    }

    /// A module of each layer.
    pub(crate) const fn layer(gguf: &'static str, hugging_face: &'static str) -> Self {
        Self { in_layer: true, gguf, hugging_face, arrangement: Arrangement::Same }
    }

    /// The same, with the rows of each head in rotary pairs.
    pub(crate) const fn in_rotary_pairs(self) -> Self {
        Self { arrangement: Arrangement::RotaryPairs, ..self }
    }
}

/// The prefix of a layer's modules, up to its number.
const GGUF_LAYER: &str = "blk.";
const HUGGING_FACE_LAYER: &str = "model.layers.";

/// A family's tensors; where two rules have a name the first one counts.
#[derive(Clone, Copy)]
pub(crate) struct TensorTable(pub(crate) &'static [&'static [TensorRule]]);

impl TensorTable {
    /// The tensors of a decoder of pre-norm layers.
    pub(crate) const PRE_NORM: &'static [TensorRule] = &[
        TensorRule::top("token_embd", "model.embed_tokens"),
        TensorRule::top("output_norm", "model.norm"),
        TensorRule::top("output", "lm_head"),
        TensorRule::layer("attn_norm", "input_layernorm"),
        TensorRule::layer("attn_q", "self_attn.q_proj"),
        TensorRule::layer("attn_k", "self_attn.k_proj"),
        TensorRule::layer("attn_v", "self_attn.v_proj"),
        TensorRule::layer("attn_output", "self_attn.o_proj"),
        TensorRule::layer("attn_q_norm", "self_attn.q_norm"),
        TensorRule::layer("attn_k_norm", "self_attn.k_norm"),
        TensorRule::layer("ffn_norm", "post_attention_layernorm"),
        TensorRule::layer("ffn_gate", "mlp.gate_proj"),
        TensorRule::layer("ffn_up", "mlp.up_proj"),
        TensorRule::layer("ffn_down", "mlp.down_proj"),
    ];

    /// The Hugging Face name of a GGUF tensor.
    pub(crate) fn to_hugging_face(self, name: &str) -> Option<String> {
        let (layer, module, kind) = parts(name, GGUF_LAYER)?;
        let rule = self.rules().find(|rule| rule.in_layer == layer.is_some() && rule.gguf == module)?;
        Some(joined(HUGGING_FACE_LAYER, layer, rule.hugging_face, kind))
    }

    /// The GGUF name of a Hugging Face tensor.
    pub(crate) fn to_gguf(self, name: &str) -> Option<String> {
        let (layer, _, kind) = parts(name, HUGGING_FACE_LAYER)?;
        Some(joined(GGUF_LAYER, layer, self.rule(name)?.gguf, kind))
    }

    /// How the tensor with this Hugging Face name lies in GGUF.
    pub(crate) fn arrangement(self, name: &str) -> Arrangement {
        self.rule(name).map_or(Arrangement::Same, |rule| rule.arrangement)
    }

    fn rule(self, name: &str) -> Option<&'static TensorRule> {
        let (layer, module, _) = parts(name, HUGGING_FACE_LAYER)?;
        self.rules().find(|rule| rule.in_layer == layer.is_some() && rule.hugging_face == module)
    }

    fn rules(self) -> impl Iterator<Item = &'static TensorRule> {
        self.0.iter().copied().flatten()
    }
}

/// Layer, module and kind of a tensor's name.
fn parts<'a>(name: &'a str, layer_prefix: &str) -> Option<(Option<&'a str>, &'a str, &'a str)> {
    let (path, kind) = name.rsplit_once('.')?;
    match path.strip_prefix(layer_prefix) {
        Some(rest) => rest.split_once('.').map(|(layer, module)| (Some(layer), module, kind)),
        None => Some((None, path, kind)),
    }
}

fn joined(layer_prefix: &str, layer: Option<&str>, module: &str, kind: &str) -> String {
    match layer {
        Some(layer) => format!("{layer_prefix}{layer}.{module}.{kind}"),
        None => format!("{module}.{kind}"),
    }
}

impl Arrangement {
    /// A tensor as GGUF stores it, put in Hugging Face's order.
    pub(crate) fn restore<'a>(self, tensor: StoredTensor<'a>, base: &BaseConfig) -> StoredTensor<'a> {
        self.moved(tensor, base, |row, head_dim| 2 * (row % (head_dim / 2)) + row / (head_dim / 2))
    }

    /// A tensor in Hugging Face's order as GGUF stores it.
    pub(crate) fn apply<'a>(self, tensor: StoredTensor<'a>, base: &BaseConfig) -> StoredTensor<'a> {
        self.moved(tensor, base, |row, head_dim| row % 2 * (head_dim / 2) + row / 2)
    }

    /// The tensor whose row `r` of a head is the given one's row `from(r, head_dim)`. One that is not made of whole heads is left
    /// as it is, for the shape check to report.
    fn moved<'a>(
        self,
        tensor: StoredTensor<'a>,
        base: &BaseConfig,
        from: impl Fn(usize, usize) -> usize,
    ) -> StoredTensor<'a> {
        let (rows, head_dim) = (tensor.shape.first().copied().unwrap_or(0), base.head_dim);
        let whole = rows > 0 && rows.is_multiple_of(head_dim) && tensor.data.len().is_multiple_of(rows);
        if self == Self::Same || !whole {
            return tensor;
        }
        let row_bytes = tensor.data.len() / rows;
        let mut data = Vec::with_capacity(tensor.data.len());
        for head in 0..rows / head_dim {
            for row in 0..head_dim {
                let stored = head * head_dim + from(row, head_dim);
                data.extend_from_slice(&tensor.data[stored * row_bytes..(stored + 1) * row_bytes]);
            }
        }
        StoredTensor { data: Cow::Owned(data), ..tensor }
    }
}

#[cfg(test)]
mod tests {
    use nanovllm_backend::DType;

    use super::*;

    const TABLE: TensorTable = TensorTable(&[TensorTable::PRE_NORM]);

    #[test]
    fn names_map_both_ways() {
        for (gguf, hf) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.17.attn_q.bias", "model.layers.17.self_attn.q_proj.bias"),
            ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ] {
            assert_eq!(TABLE.to_hugging_face(gguf).as_deref(), Some(hf));
            assert_eq!(TABLE.to_gguf(hf).as_deref(), Some(gguf));
        }
        assert_eq!(TABLE.to_hugging_face("rope_freqs.weight"), None);
        assert_eq!(TABLE.to_gguf("model.layers.0.mlp.experts.weight"), None);
        assert_eq!(TABLE.to_gguf("self_attn.q_proj.weight"), None, "a layer's module outside of one");
    }

    #[test]
    fn pairs_become_halves_and_pairs_again() {
        let base = crate::testing::base_config();
        let (dim, rows) = (base.head_dim, base.num_attention_heads * base.head_dim);
        // Rows of two bytes that say where they stand in Hugging Face's order.
        let halves: Vec<u8> = (0..rows as u8).flat_map(|r| [r, r ^ 0x80]).collect();
        let tensor = |data: &[u8]| StoredTensor {
            name: "q",
            dtype: DType::F16,
            shape: vec![rows, 1],
            data: Cow::Owned(data.to_vec()),
        };
        let arrangement = Arrangement::RotaryPairs;
        let pairs = arrangement.apply(tensor(&halves), &base).data;
        let order: Vec<usize> = pairs.chunks(2).take(4).map(|row| usize::from(row[0])).collect();
        assert_eq!(order, [0, dim / 2, 1, dim / 2 + 1]);
        assert_eq!(&*arrangement.restore(tensor(&pairs), &base).data, &halves[..]);
        let short = StoredTensor { shape: vec![rows - 1, 1], ..tensor(&halves) };
        assert_eq!(&*arrangement.apply(short, &base).data, &halves[..], "another shape is for the shape check");
    }
}
