//! The settings that config.json of every family may have.

use crate::config::json::Object;
use crate::config::json::rope::{rope_kind, rope_object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::error::{LoadError, Result};

/// The settings of config.json that models of every family have.
pub(crate) const COMMON: &[Group] = &[
    (
        Treatment::Read,
        &[
            "architectures",
            "model_type",
            "quantization_config",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "partial_rotary_factor",
            "tie_word_embeddings",
            "attention_bias",
            "mlp_bias",
            "hidden_act",
            "use_sliding_window",
        ],
    ),
    // Encoders, layers that look at an encoder, rotary pairs of neighbours, layers that differ, and heads that are cut
    // out.
    (Treatment::Only(&[Literal::Bool(false)]), &["is_encoder_decoder", "add_cross_attention", "rope_interleaved"]),
    (Treatment::Only(&[Literal::Text("full_attention")]), &["layer_types"]),
    (Treatment::Only(&[]), &["cross_attention_hidden_size", "per_layer_config", "pruned_heads"]),
    (
        Treatment::Harmless,
        &[
            // Of training, and the slices in which products were computed then.
            "initializer_range",
            "attention_dropout",
            "pretraining_tp",
            // The tokenizer and the engine read them, here or in files of their own.
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "sep_token_id",
            "decoder_start_token_id",
            "tokenizer_class",
            "prefix",
            // Who wrote the file; the tensors have their own types.
            "transformers_version",
            "unsloth_version",
            "unsloth_fixed",
            "transformers.js_config",
            "is_llama_config",
            "_name_or_path",
            "torch_dtype",
            "dtype",
            // How transformers runs the model, which changes nothing of what comes out.
            "use_cache",
            "return_dict",
            "output_hidden_states",
            "output_attentions",
            "chunk_size_feed_forward",
            "is_decoder",
            "tie_encoder_decoder",
            "torchscript",
            "use_bfloat16",
            "tf_legacy_loss",
            "_attn_implementation_autoset",
            // Of other heads than the one that gives logits.
            "id2label",
            "label2id",
            "num_labels",
            "problem_type",
            "finetuning_task",
            "task_specific_params",
            // Defaults of transformers' sampling, which each request says for itself.
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "max_length",
            "min_length",
        ],
    ),
];

/// Refuses the settings of config.json that there is no code for, and gives the names of those that nobody knows.
pub(crate) fn check_settings(json: Object<'_>, settings: Settings) -> Result<Vec<String>> {
    let mut unknown = settings.check(json.pairs(), "")?;
    if let Some((name, rope)) = rope_object(json)? {
        let known = rope_settings(rope_kind(rope)?);
        for (key, value) in rope.pairs() {
            if value.is_object() {
                // One for each kind of layer, or something newer.
                if settings.treatment(&format!("rope_parameters.{key}")).is_none() {
                    return Err(LoadError::Unsupported(format!("{name}.{key}: a rotary embedding in several parts")));
                }
                let part = Object(value);
                let known = rope_settings(rope_kind(part)?);
                let others = part.pairs().filter(|(key, _)| !known.iter().any(|list| list.contains(key)));
                unknown.extend(others.map(|(inner, _)| format!("{name}.{key}.{inner}")));
                continue;
            }
            let is_family_s = settings.treatment(&format!("rope_parameters.{key}")).is_some();
            if !is_family_s && !known.iter().any(|list| list.contains(&key)) {
                unknown.push(format!("{name}.{key}"));
            }
        }
    }
    Ok(unknown)
}

/// What is read of the description of a rotary embedding of this kind, or says nothing of it.
fn rope_settings(kind: &str) -> [&'static [&'static str]; 2] {
    let own: &[&str] = match kind {
        "linear" | "proportional" => &["factor"],
        "llama3" => &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        "yarn" => &[
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "truncate",
            "attention_factor",
            "mscale",
            "mscale_all_dim",
            "short_factor",
            "long_factor",
        ],
        "longrope" | "su" => {
            &["factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"]
        }
        _ => &[],
    };
    // Whether the model was trained with the scaling changes nothing.
    [own, &["rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned"]]
}
