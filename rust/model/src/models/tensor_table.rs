//! How GGUF names a family's tensors and orders their rows: one table for what loads a GGUF file and for what writes one.

use std::borrow::Cow;

use nanovllm_backend::DType;

use crate::config::BaseConfig;
use crate::error::Result;
use crate::stored_tensor::StoredTensor;

/// The order of a tensor's rows in GGUF, compared with Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The same.
    Same,
    /// In each head the two rows that rotate with each other are neighbours: row `i * head_dim / 2 + j` is stored as row
    /// `2 j + i`. Only whole rows move, so quantised types can be reordered too.
    RotaryPairs,
}

/// One module's names, without the `.weight` or `.bias` that follows, and the order of its rows in GGUF.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // independent facts of a name
pub(crate) struct TensorRule {
    /// Whether each layer has one; `blk.N.` or `model.layers.N.` then stands before the names.
    in_layer: bool,
    gguf: &'static str,
    hugging_face: &'static str,
    row_order: RowOrder,
    /// Whether Hugging Face stores the weight of a norm less 1, which GGUF does not.
    less_one: bool,
    /// What GGUF adds to the name of a tensor that Hugging Face calls by the module alone, without `.weight`.
    bare: Option<&'static str>,
    /// Whether there is one for each expert, which GGUF stacks in one tensor: `experts.` in Hugging Face's name is followed by
    /// the expert's number.
    pub(crate) of_experts: bool,
}

impl TensorRule {
    /// A module outside the layers, with its rows in the same order in both.
    pub(crate) const fn top(gguf: &'static str, hugging_face: &'static str) -> Self {
        Self {
            in_layer: false,
            gguf,
            hugging_face,
            row_order: RowOrder::Same,
            less_one: false,
            bare: None,
            of_experts: false,
        }
    }

    /// A module of each layer, with its rows in the same order in both.
    pub(crate) const fn layer(gguf: &'static str, hugging_face: &'static str) -> Self {
        Self { in_layer: true, ..Self::top(gguf, hugging_face) }
    }

    /// The same, with the rows of each head in rotary pairs.
    pub(crate) const fn in_rotary_pairs(self) -> Self {
        Self { row_order: RowOrder::RotaryPairs, ..self }
    }

    /// The same, of a tensor that Hugging Face calls by the module's name alone.
    pub(crate) const fn bare(self) -> Self {
        Self { bare: Some(".weight"), ..self }
    }

    /// The same, of one that is a `.scale` in GGUF.
    pub(crate) const fn bare_scale(self) -> Self {
        Self { bare: Some(".scale"), ..self }
    }

    /// The same, of which there is one for each expert.
    pub(crate) const fn of_experts(self) -> Self {
        Self { of_experts: true, ..self }
    }

    /// The same, of a norm whose weight Hugging Face stores less 1.
    pub(crate) const fn less_one(self) -> Self {
        Self { less_one: true, ..self }
    }
}

/// What GGUF names of a layer's modules begin with, up to the layer's number.
const GGUF_LAYER: &str = "blk.";
/// The same of Hugging Face names.
const HUGGING_FACE_LAYER: &str = "model.layers.";

/// What Hugging Face names of tensors end with, but for those that end with the module.
const HUGGING_FACE_KINDS: &[&str] = &[".weight", ".bias"];

/// What the number of an expert follows in Hugging Face names.
const EXPERTS: &str = "experts.";

/// A family's tensors, as lists of rules; where two rules have one name the first counts, so a family puts what it does
/// otherwise before a list that it shares.
#[derive(Clone, Copy)]
pub(crate) struct TensorTable(pub(crate) &'static [&'static [TensorRule]]);

impl TensorTable {
    /// The tensors of gated experts that are an MLP's.
    pub(crate) const EXPERTS: &'static [TensorRule] = &[
        TensorRule::layer("ffn_gate_inp", "mlp.gate"),
        TensorRule::layer("ffn_gate_exps", "mlp.experts.gate_proj").of_experts(),
        TensorRule::layer("ffn_up_exps", "mlp.experts.up_proj").of_experts(),
        TensorRule::layer("ffn_down_exps", "mlp.experts.down_proj").of_experts(),
    ];

    /// Those of experts whose gates and values are one tensor.
    pub(crate) const FUSED_EXPERTS: &'static [TensorRule] =
        &[TensorRule::layer("ffn_gate_up_exps", "mlp.experts.gate_up_proj").of_experts()];

    /// The tensors of an MLP that all tokens go through beside experts.
    pub(crate) const SHARED_EXPERT: &'static [TensorRule] = &[
        TensorRule::layer("ffn_gate_shexp", "mlp.shared.gate_proj"),
        TensorRule::layer("ffn_up_shexp", "mlp.shared.up_proj"),
        TensorRule::layer("ffn_down_shexp", "mlp.shared.down_proj"),
    ];

    /// The tensors of a decoder of pre-norm layers, of which a family need not have all.
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

    /// The Hugging Face names of a GGUF tensor whose outermost dimension is `outermost`: one, or one for each expert.
    pub(crate) fn to_hugging_face(self, name: &str, outermost: usize) -> Option<Vec<String>> {
        let (layer, module, kind) = parts(name, GGUF_LAYER, &[".weight", ".bias", ".scale"])?;
        let is_kind = |rule: &TensorRule| rule.bare.map_or(kind != ".scale", |bare| bare == kind);
        let is_it = |rule: &&TensorRule| rule.in_layer == layer.is_some() && rule.gguf == module && is_kind(rule);
        let rule = self.rules().find(is_it)?;
        let kind = if rule.bare.is_some() { "" } else { kind };
        let joined = |module: &str| joined(HUGGING_FACE_LAYER, layer, module, kind);
        if !rule.of_experts {
            return Some(vec![joined(rule.hugging_face)]);
        }
        let numbered = |expert| joined(&rule.hugging_face.replace(EXPERTS, &format!("{EXPERTS}{expert}.")));
        Some((0..outermost).map(numbered).collect())
    }

    /// The number of the expert that the tensor with this Hugging Face name is of, if it is one's that GGUF stacks.
    pub(crate) fn expert(self, name: &str) -> Option<usize> {
        self.rule(name).filter(|rule| rule.of_experts)?;
        without_expert(name)?.1.parse().ok()
    }

    /// The GGUF name of a Hugging Face tensor.
    pub(crate) fn to_gguf(self, name: &str) -> Option<String> {
        let (layer, _, kind) = parts(name, HUGGING_FACE_LAYER, HUGGING_FACE_KINDS)?;
        let rule = self.rule(name)?;
        Some(joined(GGUF_LAYER, layer, rule.gguf, rule.bare.unwrap_or(kind)))
    }

    /// The order that the rows of the tensor with this Hugging Face name have in GGUF.
    pub(crate) fn row_order(self, name: &str) -> RowOrder {
        self.rule(name).map_or(RowOrder::Same, |rule| rule.row_order)
    }

    /// The element type that the tensor with this Hugging Face name has after [`as_used`](Self::as_used).
    pub(crate) fn used_dtype(self, name: &str, stored: DType) -> DType {
        if self.rule(name).is_some_and(|rule| rule.less_one) { DType::F32 } else { stored }
    }

    /// The tensor with this Hugging Face name as layers use it, and as GGUF has it but for the order of its rows.
    ///
    /// # Errors
    /// Those of [`StoredTensor::to_f32`].
    pub(crate) fn as_used<'a>(self, name: &str, tensor: StoredTensor<'a>) -> Result<StoredTensor<'a>> {
        if !self.rule(name).is_some_and(|rule| rule.less_one) {
            return Ok(tensor);
        }
        let values = tensor.to_f32()?;
        let data = values.iter().flat_map(|value| (value + 1.0).to_le_bytes()).collect();
        Ok(StoredTensor { dtype: DType::F32, data: Cow::Owned(data), ..tensor })
    }

    fn rule(self, name: &str) -> Option<&'static TensorRule> {
        let of_one = without_expert(name);
        let plain = of_one.as_ref().map_or(name, |(plain, _)| plain);
        let (layer, module, kind) = parts(plain, HUGGING_FACE_LAYER, HUGGING_FACE_KINDS)?;
        let is_it = |rule: &&TensorRule| {
            let kinds = (rule.in_layer, rule.bare.is_some(), rule.of_experts);
            kinds == (layer.is_some(), kind.is_empty(), of_one.is_some()) && rule.hugging_face == module
        };
        self.rules().find(is_it)
    }

    fn rules(self) -> impl Iterator<Item = &'static TensorRule> {
        self.0.iter().copied().flatten()
    }
}

/// Cuts a tensor's name into the layer's number if it is in one, the module, and one of `kinds` or nothing.
fn parts<'a>(name: &'a str, layer_prefix: &str, kinds: &[&str]) -> Option<(Option<&'a str>, &'a str, &'a str)> {
    let dot = name.rfind('.').filter(|&dot| kinds.contains(&&name[dot..]));
    let (path, kind) = name.split_at(dot.unwrap_or(name.len()));
    match path.strip_prefix(layer_prefix) {
        Some(rest) => rest.split_once('.').map(|(layer, module)| (Some(layer), module, kind)),
        None => Some((None, path, kind)),
    }
}

/// A Hugging Face name without the number of an expert, and the number.
fn without_expert(name: &str) -> Option<(String, &str)> {
    let (before, rest) = name.split_once(EXPERTS)?;
    let (number, module) = rest.split_once('.')?;
    // Written otherwise, with leading zeros, it would be a second name of the same expert.
    let is_number = number.parse::<usize>().is_ok_and(|parsed| parsed.to_string() == number);
    is_number.then(|| (format!("{before}{EXPERTS}{module}"), number))
}

fn joined(layer_prefix: &str, layer: Option<&str>, module: &str, kind: &str) -> String {
    match layer {
        Some(layer) => format!("{layer_prefix}{layer}.{module}{kind}"),
        None => format!("{module}{kind}"),
    }
}

impl RowOrder {
    /// A tensor in GGUF's order put in Hugging Face's.
    pub(crate) fn to_hugging_face<'a>(self, tensor: StoredTensor<'a>, base: &BaseConfig) -> StoredTensor<'a> {
        self.moved(tensor, base, |row, head_dim| 2 * (row % (head_dim / 2)) + row / (head_dim / 2))
    }

    /// A tensor in Hugging Face's order put in GGUF's.
    pub(crate) fn to_gguf<'a>(self, tensor: StoredTensor<'a>, base: &BaseConfig) -> StoredTensor<'a> {
        self.moved(tensor, base, |row, head_dim| row % 2 * (head_dim / 2) + row / 2)
    }

    /// The tensor whose row `r` of a head is the given one's row `from(r, head_dim)`. One that is not made of whole
    /// heads is left as it is, for the shape check to report.
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
            assert_eq!(TABLE.to_hugging_face(gguf, 1), Some(vec![hf.to_owned()]));
            assert_eq!(TABLE.to_gguf(hf).as_deref(), Some(gguf));
        }
        assert_eq!(TABLE.to_hugging_face("rope_freqs.weight", 1), None);
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
        let row_order = RowOrder::RotaryPairs;
        let pairs = row_order.to_gguf(tensor(&halves), &base).data;
        let order: Vec<usize> = pairs.chunks(2).take(4).map(|row| usize::from(row[0])).collect();
        assert_eq!(order, [0, dim / 2, 1, dim / 2 + 1]);
        assert_eq!(&*row_order.to_hugging_face(tensor(&pairs), &base).data, &halves[..]);
        let short = StoredTensor { shape: vec![rows - 1, 1], ..tensor(&halves) };
        assert_eq!(&*row_order.to_gguf(short, &base).data, &halves[..], "another shape is for the shape check");
    }
}
