//! The mixes of llama.cpp: which type each tensor of a quantised file gets.
//!
//! The rules are those of `llama_tensor_get_type` in llama.cpp's `src/llama-quant.cpp` without an importance matrix, so that a file made here has the types that `llama-quantize` would give it. Tensors that matter
//! more than their size (values, the down projection, the output) get more bits, the more so in the first and last
//! layers.

use std::collections::BTreeSet;

#[allow(clippy::enum_glob_use)] // the rules are about nothing but types
use nanovllm_gguf::GgmlType::{self, *};

/// A named recipe, such as Q4_K_M.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    /// What most matrices get.
    pub(crate) base: GgmlType,
    /// What `general.file_type` is in the file.
    pub(crate) file_type: u32,
}

const fn mix(name: &'static str, base: GgmlType, file_type: u32) -> Mix {
    Mix { name, base, file_type }
}

/// What `general.file_type` is of a file whose experts are in MXFP4.
pub(super) const MXFP4_FILE: u32 = 38;

/// Every mix that can be made. For the types of llama.cpp's others there is no quantiser, as most want an importance
/// matrix.
pub(crate) const MIXES: &[Mix] = &[
    mix("F32", F32, 0),
    mix("F16", F16, 1),
    mix("BF16", Bf16, 32),
    mix("Q8_0", Q8_0, 7),
    mix("Q6_K", Q6_K, 18),
    mix("Q5_K_M", Q5_K, 17),
    mix("Q5_K_S", Q5_K, 16),
    mix("Q5_1", Q5_1, 9),
    mix("Q5_0", Q5_0, 8),
    mix("Q4_K_M", Q4_K, 15),
    mix("Q4_K_S", Q4_K, 14),
    mix("Q4_1", Q4_1, 3),
    mix("Q4_0", Q4_0, 2),
    mix("IQ4_NL", IQ4_NL, 25),
    mix("IQ4_XS", IQ4_XS, 30),
    // llama.cpp has MXFP4 for experts only; here every matrix but embedding and output gets it in a model without experts.
    mix("MXFP4", MXFP4, MXFP4_FILE),
    mix("Q3_K_L", Q3_K, 13),
    mix("Q3_K_M", Q3_K, 12),
    mix("Q3_K_S", Q3_K, 11),
    mix("Q2_K", Q2_K, 10),
    mix("TQ2_0", TQ2_0, 37),
    mix("TQ1_0", TQ1_0, 36),
];

/// What the rules ask of a model.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) num_layers: usize,
    /// The layers that have a projection to values, which are all but in models whose values are their keys.
    pub(crate) value_layers: Vec<usize>,
    /// Query heads that share one key/value head, in the first layer.
    pub(crate) heads_per_kv_head: usize,
    /// Whether the embedding is also the output projection.
    pub(crate) tied: bool,
    /// Experts of a layer; 0 in a model without.
    pub(crate) num_experts: usize,
}

/// A tensor's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What the mix has for it.
    pub(crate) wanted: GgmlType,
    /// What it gets: another where its rows are no whole blocks of that.
    pub(crate) given: GgmlType,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Output,
    Embedding,
    Key,
    Value,
    AttentionOutput,
    Down,
    Other,
}

impl Mix {
    /// The mix of this name, in any case. As for `llama-quantize`, "Q4_K" is short for "Q4_K_M".
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        let find = |name: &str| MIXES.iter().find(|mix| mix.name.eq_ignore_ascii_case(name));
        find(name).or_else(|| find(&format!("{name}_M")))
    }

    /// The type of the tensor `name` (GGUF's) with rows of `cols` elements, now of type `stored`: what the rules give it,
    /// or, if `pure`, the base type for every matrix.
    pub(crate) fn choice(
        &self,
        model: &Model,
        pure: bool,
        name: &str,
        dims: usize,
        cols: usize,
        stored: GgmlType,
    ) -> Choice {
        let wanted = match self.base {
            _ if !is_matrix(name, dims) => return Choice { wanted: stored, given: stored },
            base if pure || base.block_size() == 1 => base,
            _ => self.wanted(model, name),
        };
        Choice { wanted, given: fit(wanted, cols) }
    }

    /// The type that the rules give a matrix, whose rows may not be whole blocks of it.
    #[allow(clippy::match_same_arms)] // one arm a rule of llama.cpp's, by role
    fn wanted(&self, model: &Model, name: &str) -> GgmlType {
        let role = Role::of(name);
        let (mut layer, mut n, base) = (layer(name).unwrap_or(0), model.num_layers, self.base);
        // Of values the tensors are counted, not the layers.
        if let Some(place) =
            model.value_layers.iter().position(|&values| values == layer).filter(|_| role == Role::Value)
        {
            (layer, n) = (place, model.value_layers.len());
        }
        let first_eighth = layer < n / 8;
        let more_bits = first_eighth || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
        let shared = model.heads_per_kv_head >= 4;
        if role == Role::Output || (model.tied && role == Role::Embedding) {
            return if matches!(base, Q8_0 | MXFP4) { Q8_0 } else { Q6_K };
        }
        match (role, self.name) {
            (_, "MXFP4") if model.num_experts > 0 && !name.contains("_exps.") => Q8_0,
            (Role::Key | Role::Value, _) if model.num_experts == 8 => Q8_0,
            (Role::AttentionOutput, name) if model.num_experts == 8 => {
                let has_more = matches!(name, "Q2_K" | "Q3_K_S" | "Q3_K_M" | "IQ4_NL" | "Q4_K_S" | "Q4_K_M" | "IQ4_XS");
                if has_more { Q5_K } else { base }
            }
            (Role::Embedding, "TQ1_0" | "TQ2_0") => Q4_K,
            (Role::Embedding, "MXFP4") => Q8_0,
            (Role::Value, name) => {
                let dtype = match name {
                    "Q2_K" => {
                        if shared {
                            Q4_K
                        } else {
                            Q3_K
                        }
                    }
                    "Q3_K_M" => {
                        if layer < 2 {
                            Q5_K
                        } else {
                            Q4_K
                        }
                    }
                    "Q3_K_L" => Q5_K,
                    "IQ4_NL" | "IQ4_XS" if shared => Q5_K,
                    "Q4_K_M" | "Q5_K_M" if more_bits => Q6_K,
                    "Q4_K_S" if layer < 4 => Q5_K,
                    _ => base,
                };
                // In models of 70 billion parameters eight query heads share a value head, so it is small and much
                // depends on it. llama.cpp knows them by their 80 layers and their architecture, and counts a
                // Qwen1.5-72B, whose heads share nothing, among them.
                let is_70b = model.num_layers == 80 && model.heads_per_kv_head > 1;
                if is_70b && matches!(dtype, Q3_K | Q4_K) { Q5_K } else { dtype }
            }
            (Role::Down, "Q2_K") => Q3_K,
            (Role::Down, "Q3_K_M") => {
                if layer < n / 16 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            (Role::Down, "Q3_K_L") => Q5_K,
            (Role::Down, "Q4_K_M" | "Q5_K_M") if more_bits => Q6_K,
            (Role::Down, "Q4_K_S" | "IQ4_NL" | "IQ4_XS") if first_eighth => Q5_K,
            (Role::AttentionOutput, "Q2_K") => Q3_K,
            (Role::AttentionOutput, "Q3_K_M") => Q4_K,
            (Role::AttentionOutput, "Q3_K_L") => Q5_K,
            _ => base,
        }
    }
}

impl Role {
    fn of(name: &str) -> Self {
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::Embedding,
            _ if ["attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"].iter().any(|part| name.contains(part)) => {
                Self::Value
            }
            _ if name.contains("attn_k.weight") => Self::Key,
            _ if name.contains("attn_output.weight") => Self::AttentionOutput,
            _ if name.contains("ffn_down") => Self::Down,
            _ => Self::Other,
        }
    }
}

/// Whether llama.cpp keeps a tensor in F32: vectors, also those that are stacked, norms and the router of experts.
pub(super) fn is_f32(name: &str, dims: usize) -> bool {
    dims < 2 || !name.ends_with("weight") || name.contains("_norm.weight") || name.contains("ffn_gate_inp.weight")
}

/// Whether a tensor is quantised at all; what makes a Gemma's inputs of layers is not.
fn is_matrix(name: &str, dims: usize) -> bool {
    !is_f32(name, dims) && !name.contains("per_layer_model_proj")
}

/// The layers that have a projection to values among the tensors of these names, in order.
pub(super) fn value_layers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let found: BTreeSet<usize> = names.filter(|name| Role::of(name) == Role::Value).filter_map(layer).collect();
    found.into_iter().collect()
}

/// The number of the layer that a tensor belongs to, 7 for "blk.7.attn_v.weight".
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// `dtype` where rows are whole blocks of it; otherwise llama.cpp's replacement of no fewer bits in blocks of 32, and
/// where those do not fit either, F16.
fn fit(dtype: GgmlType, cols: usize) -> GgmlType {
    if cols.is_multiple_of(dtype.block_size()) {
        return dtype;
    }
    let smaller = match dtype {
        Q2_K | Q3_K | TQ1_0 | TQ2_0 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        IQ4_XS => IQ4_NL,
        other => other,
    };
    if cols.is_multiple_of(smaller.block_size()) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Model =
        Model { num_layers: 28, value_layers: Vec::new(), heads_per_kv_head: 2, tied: true, num_experts: 0 };

    fn dtype(mix: &Mix, model: &Model, name: &str, dims: usize, cols: usize, stored: GgmlType) -> GgmlType {
        mix.choice(model, false, name, dims, cols, stored).given
    }

    fn types(mix: &str, model: &Model, part: &str, cols: usize) -> Vec<GgmlType> {
        let mix = Mix::named(mix).unwrap();
        (0..model.num_layers).map(|i| dtype(mix, model, &format!("blk.{i}.{part}.weight"), 2, cols, F32)).collect()
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Mix::named("q4_k_m").unwrap().file_type, 15);
        assert_eq!(Mix::named("Q4_K").unwrap().name, "Q4_K_M");
        assert_eq!(Mix::named("IQ2_XS"), None);
        for mix in MIXES {
            assert_eq!(Mix::named(mix.name), Some(mix));
        }
    }

    #[test]
    fn q4_k_m_gives_more_bits_where_they_tell() {
        let six = |types: Vec<GgmlType>| {
            assert!(types.iter().all(|&t| t == Q4_K || t == Q6_K));
            types.iter().enumerate().filter(|&(_, &t)| t == Q6_K).map(|(i, _)| i).collect::<Vec<_>>()
        };
        // What llama-quantize gives a model of 28 layers.
        let expected = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27];
        assert_eq!(six(types("Q4_K_M", &MODEL, "ffn_down", 3072)), expected);
        assert_eq!(six(types("Q4_K_M", &MODEL, "attn_v", 1024)), expected);
        assert_eq!(six(types("Q4_K_M", &MODEL, "attn_q", 1024)), [0; 0]);
    }

    #[test]
    fn output_and_tied_embedding_are_alike() {
        let mix = Mix::named("Q4_K_M").unwrap();
        let untied = Model { tied: false, ..MODEL };
        assert_eq!(dtype(mix, &MODEL, "token_embd.weight", 2, 1024, Bf16), Q6_K);
        assert_eq!(dtype(mix, &untied, "token_embd.weight", 2, 1024, Bf16), Q4_K);
        assert_eq!(dtype(mix, &untied, "output.weight", 2, 1024, Bf16), Q6_K);
        assert_eq!(dtype(mix, &untied, "output.weight", 2, 576, Bf16), Q8_0, "no multiple of 256");
        assert_eq!(dtype(Mix::named("Q8_0").unwrap(), &untied, "output.weight", 2, 1024, Bf16), Q8_0);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_get_smaller_blocks() {
        assert_eq!(types("Q4_K_S", &MODEL, "attn_q", 576)[20], Q5_0);
        assert_eq!(types("Q2_K", &MODEL, "attn_q", 576)[20], Q4_0);
        assert_eq!(types("IQ4_XS", &MODEL, "attn_q", 576)[20], IQ4_NL);
        assert_eq!(types("Q6_K", &MODEL, "attn_q", 100)[20], F16);
        for (pure, wanted) in [(false, Q6_K), (true, Q4_K)] {
            let mix = Mix::named("Q4_K_M").unwrap();
            let choice = mix.choice(&MODEL, pure, "token_embd.weight", 2, 576, Bf16);
            assert_eq!((choice.wanted, choice.given), (wanted, if pure { Q5_0 } else { Q8_0 }));
        }
    }

    #[test]
    fn vectors_and_norms_stay_as_they_are() {
        for mix in MIXES {
            assert_eq!(dtype(mix, &MODEL, "blk.0.attn_norm.weight", 1, 1024, F32), F32);
            assert_eq!(dtype(mix, &MODEL, "blk.0.attn_q_norm.weight", 2, 1024, F32), F32);
            assert_eq!(dtype(mix, &MODEL, "blk.0.attn_q.bias", 1, 1024, F32), F32);
        }
    }

    /// What llama-quantize gives a Mixtral, of 8 experts, and a model of others.
    #[test]
    fn few_experts_get_sharper_attention() {
        let of = |mix: &str, num_experts, part: &str| {
            types(mix, &Model { num_experts, tied: false, ..MODEL }, part, 1024)[20]
        };
        for part in ["attn_k", "attn_v"] {
            assert_eq!((of("Q4_K_M", 8, part), of("Q4_0", 8, part)), (Q8_0, Q8_0));
        }
        assert_eq!((of("Q4_K_M", 8, "attn_output"), of("Q3_K_L", 8, "attn_output")), (Q5_K, Q3_K));
        assert_eq!((of("Q4_K_M", 128, "attn_k"), of("Q4_K_M", 128, "attn_output")), (Q4_K, Q4_K));
        assert_eq!((of("Q4_K_M", 8, "ffn_down_exps"), of("Q4_K_M", 8, "ffn_up_exps")), (Q6_K, Q4_K));
    }

    /// As llama-quantize counts them in a model whose layers of one kind take their keys for values.
    #[test]
    fn values_are_counted_where_there_are_any() {
        let model = Model { num_layers: 30, value_layers: (0..30).filter(|i| i % 6 != 5).collect(), ..MODEL };
        let of =
            |layer| dtype(Mix::named("Q4_K_M").unwrap(), &model, &format!("blk.{layer}.attn_v.weight"), 2, 1024, F32);
        // Layer 6 has the sixth such tensor of 25: (5 - 25 / 8) % 3 is 2.
        assert_eq!((of(6), of(7)), (Q6_K, Q4_K));
    }

    #[test]
    fn mxfp4_is_for_experts_where_there_are_any() {
        let of = |num_experts, part: &str| types("MXFP4", &Model { num_experts, ..MODEL }, part, 1024)[3];
        assert_eq!((of(32, "ffn_up_exps"), of(32, "attn_q"), of(0, "attn_q")), (MXFP4, Q8_0, MXFP4));
    }

    #[test]
    fn shallow_models_have_types_too() {
        for num_layers in 1..10 {
            let model = Model { num_layers, ..MODEL };
            for mix in MIXES {
                assert_eq!(types(mix.name, &model, "ffn_down", 256).len(), num_layers);
            }
        }
    }
}
