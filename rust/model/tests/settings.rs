//! No setting of a model's files is ignored in silence: each is read, refused where it asks for something there is no
//! code for, known to change nothing, or named in a note.
#![allow(missing_docs, clippy::unwrap_used)] // a test

use std::path::Path;

use nanovllm_gguf::{Array, GgmlType, GgufFile, GgufWriter, Metadata, TensorSpec, Value};
use nanovllm_model::{FAMILIES, LoadError, ModelConfig, RopeConfig, RopeScaling};
use serde_json::{Value as Json, json};

/// What transformers' `LlamaConfig` and `Qwen3Config` are made of, and their base class, of versions 4 and 5.
const TRANSFORMERS: &str = "
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act
    max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id
    pretraining_tp tie_word_embeddings rope_parameters rope_theta rope_scaling attention_bias attention_dropout mlp_bias
    head_dim use_sliding_window sliding_window max_window_layers layer_types partial_rotary_factor
    architectures model_type transformers_version torch_dtype dtype _name_or_path return_dict output_hidden_states
    output_attentions chunk_size_feed_forward is_encoder_decoder is_decoder add_cross_attention
    cross_attention_hidden_size pruned_heads tie_encoder_decoder id2label label2id num_labels problem_type
    finetuning_task task_specific_params tokenizer_class prefix sep_token_id decoder_start_token_id torchscript
    use_bfloat16 tf_legacy_loss per_layer_config quantization_config
    temperature top_k top_p typical_p do_sample early_stopping num_beams num_beam_groups diversity_penalty
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens max_length min_length";

/// Those of them that change nothing of what a model computes.
const HARMLESS: &str = "
    initializer_range use_cache pad_token_id bos_token_id eos_token_id pretraining_tp attention_dropout
    resid_pdrop embd_pdrop vision_config audio_config video_token_id audio_token_id boa_token_id eoa_token_id
    eoa_token_index vision_soft_tokens_per_image num_experts top_k_experts moe_intermediate_size image_token_id image_token_index boi_token_id eoi_token_id mm_tokens_per_image
    num_experts_per_tok output_router_logits router_aux_loss_coef mamba_n_heads mamba_n_groups
    mamba_d_state mamba_d_head mamba_d_conv mamba_expand mamba_chunk_size mamba_conv_bias mamba_proj_bias time_step_limit
    boi_token_index eoi_token_index vision_feature_layer projector_hidden_act multimodal_projector_bias spatial_merge_size
    sliding_window max_window_layers
    transformers_version torch_dtype dtype _name_or_path return_dict output_hidden_states output_attentions
    chunk_size_feed_forward is_decoder tie_encoder_decoder id2label label2id num_labels problem_type finetuning_task
    task_specific_params tokenizer_class prefix sep_token_id decoder_start_token_id torchscript use_bfloat16
    tf_legacy_loss
    temperature top_k top_p typical_p do_sample early_stopping num_beams num_beam_groups diversity_penalty
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens max_length min_length";

/// What transformers' class of Llama does not know, and that of Qwen3 does.
const QWEN3_ONLY: &str = "sliding_window max_window_layers";

fn words(list: &str) -> Vec<&str> {
    list.split_whitespace().collect()
}

fn config_json(name: &str) -> Json {
    let file = format!("../../tests/golden/configs/{name}_transformers4.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn with_json(name: &str, key: &str, value: Json) -> Result<ModelConfig, LoadError> {
    let mut config = config_json(name);
    config[key] = value;
    ModelConfig::from_json(config)
}

/// Whatever is no good value of any setting is an error that names a setting that is read or checked; of those that
/// change nothing it makes no difference, and there is none that nobody knows.
#[test]
fn no_setting_of_transformers_is_ignored_in_silence() {
    for name in ["tiny_llama", "tiny_qwen3"] {
        assert_eq!(ModelConfig::from_json(config_json(name)).unwrap().notes(), [""; 0]);
        for key in words(TRANSFORMERS) {
            let result = with_json(name, key, json!({"x": {"y": 0.5}}));
            let unknown = name == "tiny_llama" && words(QWEN3_ONLY).contains(&key);
            if words(HARMLESS).contains(&key) {
                let notes = result.unwrap_or_else(|e| panic!("{key}: {e}")).notes();
                assert_eq!(notes.iter().any(|note| note.contains(key)), unknown, "{name}, {key}: {notes:?}");
            } else {
                let error = result.expect_err(key).to_string();
                assert!(error.contains(key), "{name}, {key}: {error}");
            }
        }
    }
}

/// The same of every key that transformers writes for a model of each family.
#[test]
fn no_setting_of_a_family_is_ignored_in_silence() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let mut families = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let case: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let config = ModelConfig::from_json(case["config"].clone()).unwrap();
        assert_eq!(config.notes(), [""; 0], "{}", path.display());
        families.insert(config.family.row().name);
        // Of a model with other parts the decoder's object says what it is, and the one outside of it what is tied.
        for object in ["", "/text_config"] {
            let Some(settings) = case["config"].pointer(object).and_then(Json::as_object) else { continue };
            let unread = match object {
                "" if config.has_other_parts => "architectures model_type",
                "" => "",
                _ => "tie_word_embeddings",
            };
            let harmless = [words(HARMLESS), words(unread)].concat();
            for key in settings.keys() {
                let mut changed = case["config"].clone();
                changed.pointer_mut(object).unwrap()[key] = json!({"x": {"y": 0.5}});
                match ModelConfig::from_json(changed) {
                    Ok(_) => assert!(harmless.contains(&key.as_str()), "{}: {key} is ignored", path.display()),
                    Err(error) => {
                        assert!(error.to_string().contains(key.as_str()), "{}: {key}: {error}", path.display());
                    }
                }
            }
        }
    }
    assert_eq!(families.len(), FAMILIES.len() - 2, "a case for each family but Llama and Qwen3");
}

#[test]
fn a_setting_that_nobody_knows_is_noted() {
    let config = with_json("tiny_llama", "attention_multiplier", json!(0.5)).unwrap();
    assert!(config.notes().concat().contains("attention_multiplier"), "{:?}", config.notes());
    let config = with_json("tiny_llama", "attention_multiplier", Json::Null).unwrap();
    assert_eq!(config.notes(), [""; 0]);
    let scaling = json!({"rope_type": "linear", "factor": 2.0, "attention_factor": 2.0, "alpha": 8});
    let notes = with_json("tiny_llama", "rope_scaling", scaling).unwrap().notes().concat();
    assert!(notes.contains("rope_scaling.attention_factor") && notes.contains("rope_scaling.alpha"), "{notes}");
    assert!(!notes.contains("rope_scaling.factor"), "{notes}");
}

#[test]
fn what_config_json_asks_for_in_vain_is_refused() {
    for (key, value, words) in [
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("rope_scaling", json!({"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("rope_scaling", json!(5), "rope_scaling must be an object"),
        ("rope_parameters", json!({"full_attention": {"rope_theta": 1e4}}), "rope_parameters.full_attention"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
        ("is_encoder_decoder", json!(true), "is_encoder_decoder"),
        ("rope_interleaved", json!(true), "rope_interleaved"),
    ] {
        for name in ["tiny_llama", "tiny_qwen3"] {
            let error = with_json(name, key, value.clone()).expect_err(key).to_string();
            assert!(error.contains(words), "{name}, {key}: {error}");
        }
    }
    // A layer made by hand reads the same object.
    assert!(RopeConfig::from_json(&json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5})).is_err());
    // Whatever is equal to the default is no reason to refuse.
    assert!(with_json("tiny_llama", "partial_rotary_factor", json!(1.0)).is_ok());
    assert!(with_json("tiny_qwen3", "layer_types", json!(["full_attention"])).is_ok());
}

/// transformers 5 reads `rope_scaling`, and nothing here, where a file has both.
#[test]
fn two_descriptions_of_the_rotary_embedding_must_agree() {
    let both = |parameters: Json, scaling: Json| {
        let mut config = config_json("tiny_llama");
        config["rope_parameters"] = parameters;
        config["rope_scaling"] = scaling;
        ModelConfig::from_json(config)
    };
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let with_theta = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4});
    assert!(both(with_theta.clone(), linear.clone()).is_ok());
    let error = both(json!({"rope_type": "default"}), linear).unwrap_err().to_string();
    assert!(error.contains("rope_parameters") && error.contains("rope_scaling"), "{error}");
}

/// What llama.cpp may read for a model of any architecture, but for those that only recurrent models, encoders or
/// other modalities have.
const LLAMA_CPP: &str = "
    vocab_size context_length embedding_length embedding_length_out embedding_length_per_layer_input block_count
    leading_dense_block_count feed_forward_length expert_feed_forward_length expert_shared_feed_forward_length
    expert_chunk_feed_forward_length use_parallel_residual tensor_data_layout expert_count expert_used_count
    expert_shared_count expert_group_count expert_group_used_count expert_weights_scale expert_weights_norm
    expert_gating_func expert_group_scale experts_per_group moe_every_n_layers moe_latent_size nextn_predict_layers
    n_deepstack_layers hidden_activation pooling_type logit_scale attn_logit_softcapping router_logit_softcapping
    final_logit_softcapping swin_norm residual_scale embedding_scale interleave_moe_layer_step full_attention_interval
    swiglu_clamp_exp swiglu_clamp_shexp
    attention.head_count attention.head_count_kv attention.max_alibi_bias attention.clamp_kqv attention.key_length
    attention.value_length attention.layer_norm_epsilon attention.layer_norm_rms_epsilon attention.causal
    attention.sliding_window attention.sliding_window_pattern attention.scale attention.output_scale
    attention.temperature_length attention.temperature_scale attention.key_length_mla attention.value_length_mla
    attention.key_length_swa attention.value_length_swa attention.shared_kv_layers
    rope.dimension_count rope.dimension_count_swa rope.dimension_sections rope.freq_base rope.freq_base_swa
    rope.scale_linear rope.scaling.type rope.scaling.factor rope.scaling.alpha rope.scaling.attn_factor
    rope.scaling.original_context_length rope.scaling.finetuned rope.scaling.yarn_log_multiplier
    rope.scaling.yarn_ext_factor rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast
    rope.scaling.yarn_beta_slow";

/// Those of them that change nothing of what these models compute.
const HARMLESS_IN_GGUF: &str = "
    tensor_data_layout pooling_type attention.layer_norm_epsilon rope.scaling.finetuned rope.freq_base_swa
    rope.dimension_count_swa attention.key_length_swa attention.value_length_swa";

/// Those of them that one architecture alone has a meaning for.
const READ_BY_ONE: &[(&str, &str)] = &[
    ("gemma3", "rope.freq_base_swa"),
    ("gemma3", "rope.dimension_count_swa"),
    ("gemma3", "attention.key_length_swa"),
    ("gemma3", "attention.value_length_swa"),
    ("gpt-oss", "rope.freq_base_swa"),
    ("gpt-oss", "rope.dimension_count_swa"),
    ("gpt-oss", "attention.key_length_swa"),
    ("gpt-oss", "attention.value_length_swa"),
    ("gemma4", "rope.freq_base_swa"),
    ("gemma4", "rope.dimension_count_swa"),
    ("gemma4", "attention.key_length_swa"),
    ("gemma4", "attention.value_length_swa"),
    ("granite", "rope.scaling.finetuned"),
    ("granitemoe", "rope.scaling.finetuned"),
];
/// Those of them that change nothing of what one architecture computes.
const HARMLESS_IN_ONE: &[(&str, &str)] = &[
    ("granite", "expert_shared_feed_forward_length"),
    // Where there are no experts.
    ("gemma4", "expert_feed_forward_length"),
    ("gemma4", "expert_used_count"),
];

/// The configuration of a small GGUF model of this architecture, with some keys (without their prefix) set.
fn gguf(architecture: &str, keys: &[(&str, Value)], factors: bool) -> Result<ModelConfig, LoadError> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::String(architecture.into()));
    metadata.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    for (key, value) in [
        ("embedding_length", 64),
        ("attention.head_count", 4),
        ("feed_forward_length", 64),
        ("block_count", 1),
        ("vocab_size", 256),
        ("context_length", 64),
    ] {
        metadata.set(&format!("{architecture}.{key}"), Value::U32(value));
    }
    let needed: &[(&str, Value)] = match architecture {
        "gemma4" => &[
            ("attention.sliding_window_pattern", Value::Array(Array::Bool(vec![false]))),
            ("attention.sliding_window", Value::U32(8)),
            ("attention.key_length_swa", Value::U32(16)),
        ],
        "qwen3moe" | "granitemoe" | "gpt-oss" => &[
            ("expert_count", Value::U32(4)),
            ("expert_used_count", Value::U32(2)),
            ("expert_feed_forward_length", Value::U32(32)),
            ("attention.sliding_window", Value::U32(if architecture == "gpt-oss" { 8 } else { 0 })),
        ],
        _ => &[],
    };
    for (key, value) in needed.iter().chain(keys) {
        metadata.set(&format!("{architecture}.{key}"), value.clone());
    }
    let name = if factors { "rope_freqs.weight" } else { "token_embd.weight" };
    let spec = TensorSpec { name: name.into(), dims: vec![8], dtype: GgmlType::F32 };
    let mut writer = GgufWriter::new(Vec::new(), &metadata, std::slice::from_ref(&spec))?;
    let ones: Vec<u8> = std::iter::repeat_n(1f32.to_le_bytes(), 8).flatten().collect();
    writer.tensor(&spec.name, &ones)?;
    ModelConfig::from_gguf(&GgufFile::from_bytes(writer.into_inner()?)?)
}

#[test]
fn no_setting_of_llama_cpp_is_ignored_in_silence() {
    for row in FAMILIES {
        assert_eq!(gguf(row.gguf, &[], false).unwrap().notes(), [""; 0]);
        for key in words(LLAMA_CPP) {
            // YaRN reads the most keys.
            let yarn = [
                ("rope.scaling.type", Value::String("yarn".into())),
                ("rope.scaling.factor", Value::F32(2.0)),
                ("rope.scaling.original_context_length", Value::U32(32)),
            ];
            // The old name of the factor counts where the new one is missing, and the width of a head where it is said.
            let keys: Vec<_> = yarn.into_iter().filter(|_| key != "rope.scale_linear").collect();
            let odd = (key, Value::Array(Array::String(vec!["odd".into()])));
            let result = gguf(row.gguf, &[&keys[..], &[odd]].concat(), false);
            let harmless = words(HARMLESS_IN_GGUF).contains(&key) && !READ_BY_ONE.contains(&(row.gguf, key));
            if harmless || HARMLESS_IN_ONE.contains(&(row.gguf, key)) {
                let notes = result.unwrap_or_else(|e| panic!("{key}: {e}")).notes();
                assert_eq!(notes, [""; 0], "{key}");
            } else {
                let error = result.expect_err(key).to_string();
                assert!(error.contains(&format!("{}.{key}", row.gguf)), "{key}: {error}");
            }
        }
        let config = gguf(row.gguf, &[("attention.new", Value::F32(0.5))], false).unwrap();
        assert!(config.notes().concat().contains(&format!("{}.attention.new", row.gguf)), "{:?}", config.notes());
    }
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// The YaRN scaling of a file with these keys besides those that YaRN needs.
fn yarn(keys: &[(&str, Value)]) -> Result<RopeScaling, LoadError> {
    let needed = [
        ("rope.scaling.type", text("yarn")),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::U32(16)),
    ];
    gguf("llama", &[&needed[..], keys].concat(), false).map(|config| config.base.rope.scaling)
}

/// llama.cpp multiplies what follows from the factor by `attn_factor`.
#[test]
fn the_parameters_of_yarn_are_read() {
    let keys = [
        ("rope.scaling.yarn_beta_fast", Value::F32(16.0)),
        ("rope.scaling.yarn_beta_slow", Value::F32(2.0)),
        ("rope.scaling.yarn_ext_factor", Value::F32(1.0)),
        ("rope.scaling.attn_factor", Value::F32(0.5)),
        ("rope.scaling.yarn_attn_factor", Value::F32(1.0)),
    ];
    let RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, .. } = yarn(&keys).unwrap() else { panic!("YaRN") };
    assert_eq!((beta_fast, beta_slow), (16.0, 2.0));
    assert!((attention_factor.unwrap() - 0.5 * (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12);
    let RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, .. } = yarn(&[]).unwrap() else { panic!("YaRN") };
    assert_eq!((beta_fast, beta_slow, attention_factor), (32.0, 1.0, None));
    for (key, value) in [
        ("rope.scaling.yarn_ext_factor", 0.5),
        ("rope.scaling.yarn_ext_factor", 0.0),
        ("rope.scaling.yarn_attn_factor", 2.0),
        ("rope.scaling.yarn_log_multiplier", 1.0),
        ("rope.scaling.alpha", 8.0),
    ] {
        let error = yarn(&[(key, Value::F32(value))]).expect_err(key).to_string();
        assert!(error.contains(&format!("llama.{key}")) && error.contains(&value.to_string()), "{error}");
    }
}

#[test]
fn a_factor_without_a_type_is_linear() {
    let scaling = |keys: &[_]| gguf("qwen3", keys, false).unwrap().base.rope.scaling;
    assert_eq!(scaling(&[("rope.scaling.factor", Value::F32(2.0))]), RopeScaling::Linear { factor: 2.0 });
    assert_eq!(scaling(&[("rope.scale_linear", Value::F32(2.0))]), RopeScaling::Linear { factor: 2.0 });
    assert_eq!(scaling(&[("rope.scaling.factor", Value::F32(1.0))]), RopeScaling::None);
    assert_eq!(
        scaling(&[("rope.scaling.type", text("linear")), ("rope.scale_linear", Value::F32(2.0))]),
        RopeScaling::Linear { factor: 2.0 }
    );
    let none = [("rope.scaling.type", text("none")), ("rope.scaling.factor", Value::F32(2.0))];
    assert_eq!(scaling(&none), RopeScaling::None, "as in llama.cpp");
    for key in ["rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor"] {
        let keys = [("rope.scaling.factor", Value::F32(2.0)), (key, Value::F32(0.5))];
        let error = gguf("llama", &keys, false).expect_err(key).to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_scaling_beside_rope_freqs_is_refused() {
    let factor = |value| ("rope.scaling.factor", Value::F32(value));
    for keys in [
        vec![("rope.scaling.type", text("linear")), factor(2.0)],
        vec![factor(2.0)],
        vec![("rope.scaling.attn_factor", Value::F32(2.0))],
        vec![("rope.scaling.type", text("yarn")), factor(2.0), ("rope.scaling.original_context_length", Value::U32(8))],
    ] {
        let error = gguf("llama", &keys, true).unwrap_err().to_string();
        assert!(error.contains("llama.rope.scaling."), "{error}");
        assert!(error.contains("rope_freqs.weight") || error.contains("attn_factor"), "{error}");
    }
    for keys in [
        vec![],
        vec![("rope.scaling.type", text("linear")), factor(1.0)],
        vec![("rope.scaling.type", text("none")), ("rope.scaling.original_context_length", Value::U32(8))],
    ] {
        let scaling = gguf("llama", &keys, true).unwrap().base.rope.scaling;
        assert_eq!(scaling, RopeScaling::Factors(vec![1.0; 8]));
    }
}
