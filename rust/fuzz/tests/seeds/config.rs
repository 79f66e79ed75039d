//! Files `config.json`, and GGUF files whose metadata describe no model.

use nanovllm_gguf::{Array, GgmlType, Value};
use serde_json::{Value as Json, json};

use super::{Seed, seed, with_changes};

fn qwen3() -> Json {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 512, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "attention_bias": false
    })
}

fn text(json: &Json) -> String {
    format!("{json:#}\n")
}

/// The configuration with one value changed.
fn changed(key: &str, value: Json) -> String {
    let mut config = qwen3();
    config[key] = value;
    text(&config)
}

pub(super) fn seeds() -> Vec<Seed> {
    [well_formed(), sizes(), features(), rope(), gguf()].into_iter().flatten().collect()
}

fn well_formed() -> Vec<Seed> {
    let llama3 = json!({
        "rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024
    });
    let yarn = json!({"type": "yarn", "factor": 4.0, "beta_fast": 32, "mscale": 1.0, "mscale_all_dim": 0.5});
    let mut least = qwen3();
    for key in ["num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"] {
        least[key] = Json::Null;
    }
    vec![
        seed("ok-qwen3", "", text(&qwen3())),
        seed("ok-llama", "", changed("architectures", json!(["LlamaForCausalLM"]))),
        seed("ok-only_what_must_be", "", text(&least)),
        seed("ok-llama3_rope", "", changed("rope_parameters", llama3)),
        seed("ok-yarn_rope", "", changed("rope_scaling", yarn)),
        seed("ok-experts", "", experts("mlp_only_layers", json!([1]))),
        seed("ok-linear_rope", "", changed("rope_scaling", json!({"rope_type": "linear", "factor": 2.0}))),
    ]
}

/// A configuration with experts, with one value changed.
fn experts(key: &str, value: Json) -> String {
    let mut config = qwen3();
    config["architectures"] = json!(["Qwen3MoeForCausalLM"]);
    config["num_experts"] = json!(8);
    config["num_experts_per_tok"] = json!(2);
    config["moe_intermediate_size"] = json!(32);
    config[key] = value;
    text(&config)
}

/// The config.json of a model of images and text.
fn with_images(text_config: &Json) -> Json {
    json!({"architectures": ["SeeingForConditionalGeneration"], "text_config": text_config, "vision_config": {}})
}

fn sizes() -> Vec<Seed> {
    let case = |name: &str, says: &str, key: &str, value: Json| seed(name, says, changed(key, value));
    vec![
        seed("Config-no_experts", "number of experts", experts("num_experts", json!(0))),
        seed("Config-experts_huge", "number of experts", experts("num_experts", json!(1u64 << 40))),
        seed("Config-experts_of_a_token", "1 to 8 experts", experts("num_experts_per_tok", json!(9))),
        seed("Config-width_of_experts", "width of an expert", experts("moe_intermediate_size", json!(u64::MAX >> 1))),
        seed("Config-sparse_step", "decoder_sparse_step", experts("decoder_sparse_step", json!(0))),
        seed("Config-dense_layer", "mlp_only_layers", experts("mlp_only_layers", json!([-1]))),
        seed("Config-nothing", "EOF", ""),
        seed("Config-not_json", "EOF", r#"{"architectures": ["#),
        seed("Config-not_utf8", "invalid unicode", &b"{\"a\": \"\xff\xfe\"}"[..]),
        seed("Config-an_array", "architectures is missing", "[]"),
        seed("Config-an_empty_object", "architectures is missing", "{}"),
        seed("Config-nested_deeply", "recursion limit", format!("{}{}", "[".repeat(1000), "]".repeat(1000))),
        seed("Config-number_too_large", "out of range", r#"{"rms_norm_eps": 1e999}"#),
        case("Config-heads_0", "num_attention_heads must be between 1", "num_attention_heads", json!(0)),
        case("Config-kv_heads_0", "num_key_value_heads must be between 1", "num_key_value_heads", json!(0)),
        case("Config-kv_heads_3", "multiple of num_key_value_heads (3)", "num_key_value_heads", json!(3)),
        case("Config-head_dim_0", "head_dim must be between 1", "head_dim", json!(0)),
        case("Config-head_dim_odd", "head_dim must be even, got 15", "head_dim", json!(15)),
        case("Config-hidden_size_negative", "hidden_size must be a non-negative", "hidden_size", json!(-64)),
        case("Config-hidden_size_huge", "hidden_size must be between 1", "hidden_size", json!(u64::MAX)),
        case("Config-hidden_size_a_fraction", "hidden_size must be a non-negative", "hidden_size", json!(64.5)),
        case("Config-vocab_size_text", "vocab_size must be a non-negative", "vocab_size", json!("many")),
        case("Config-vocab_size_0", "vocab_size must be between 1", "vocab_size", json!(0)),
        case("Config-layers_0", "num_hidden_layers must be between 1", "num_hidden_layers", json!(0)),
        case("Config-context_0", "max_position_embeddings must be between 1", "max_position_embeddings", json!(0)),
        case("Config-intermediate_missing", "intermediate_size is missing", "intermediate_size", Json::Null),
        case("Config-epsilon_negative", "rms_norm_eps must be", "rms_norm_eps", json!(-1.0)),
        case("Config-epsilon_infinite_in_float32", "rms_norm_eps must be", "rms_norm_eps", json!(1e300)),
        case("Config-tied_number", "tie_word_embeddings must be a boolean", "tie_word_embeddings", json!(1)),
    ]
}

fn features() -> Vec<Seed> {
    let case = |name: &str, says: &str, key: &str, value: Json| seed(name, says, changed(key, value));
    vec![
        case("UnsupportedArchitecture-mamba", "MambaForCausalLM", "architectures", json!(["MambaForCausalLM"])),
        case("Unsupported-activation", "gelu", "hidden_act", json!("gelu")),
        case("Unsupported-sliding_window", "sliding-window", "use_sliding_window", json!(true)),
        seed("ok-text_of_a_larger_model", "", text(&with_images(&qwen3()))),
        seed("Config-text_config_without_type", "text_config.model_type is missing", {
            text(&with_images(&json!({"hidden_size": 64})))
        }),
        seed("UnsupportedArchitecture-text_config", "mamba", text(&with_images(&json!({"model_type": "mamba"})))),
        case("Config-text_config_number", "text_config must be an object", "text_config", json!(3)),
        case("Unsupported-quantised", "quantization_config", "quantization_config", json!({"quant_method": "awq"})),
    ]
}

fn rope() -> Vec<Seed> {
    let scaled = |name: &str, says: &str, scaling: Json| seed(name, says, changed("rope_scaling", scaling));
    let long_rope = |factors: Json| json!({"rope_type": "longrope", "factor": 4.0, "short_factor": factors, "long_factor": factors});
    vec![
        seed("Config-theta_0", "rope_theta must be positive", changed("rope_theta", json!(0.0))),
        seed("Config-theta_negative", "rope_theta must be positive", changed("rope_theta", json!(-1.0))),
        scaled("Unsupported-rope_type", "dynamic", json!({"rope_type": "dynamic", "factor": 2})),
        scaled("ok-long_rope", "", long_rope(json!(vec![1.0; 8]))),
        scaled("Config-long_rope_text", "short_factor must be a list of numbers", long_rope(json!(vec!["1"; 8]))),
        scaled("Config-long_rope_of_another_size", "7 factors for 8 frequencies", long_rope(json!(vec![1.0; 7]))),
        scaled("Config-long_rope_0", "a factor must be positive", long_rope(json!(vec![0.0; 8]))),
        scaled("Config-long_rope_missing", "rope_scaling.short_factor is missing", json!({"rope_type": "longrope"})),
        scaled("Unsupported-part_of_a_head", "partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
        scaled("Config-factor_missing", "rope_scaling.factor is missing", json!({"type": "linear"})),
        scaled("Config-factor_0", "factor must be positive", json!({"type": "linear", "factor": 0})),
        scaled("Config-factor_text", "factor must be a number", json!({"type": "linear", "factor": "2"})),
        scaled("Config-frequencies_reversed", "high_freq_factor - low_freq_factor must be positive", {
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1})
        }),
        scaled("Config-original_context_0", "original_max_position_embeddings must be positive", {
            json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 0})
        }),
    ]
}

fn gguf() -> Vec<Seed> {
    let pairs = || {
        vec![
            ("general.architecture", Value::String("llama".into())),
            ("llama.embedding_length", Value::U32(64)),
            ("llama.attention.head_count", Value::U32(4)),
            ("llama.attention.head_count_kv", Value::U32(2)),
            ("llama.feed_forward_length", Value::U32(96)),
            ("llama.block_count", Value::U32(2)),
            ("llama.vocab_size", Value::U32(512)),
            ("llama.context_length", Value::U32(2048)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("llama.rope.dimension_count", Value::U32(16)),
        ]
    };
    let case = |name: &str, says: &str, key: &str, value: Option<Value>| {
        seed(name, says, with_changes(&pairs(), &[(key, value)]).build())
    };
    let with_factors = |name: &str, values: &[f32]| {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let builder = with_changes(&pairs(), &[]);
        builder.tensor(name, &[values.len() as u64], GgmlType::F32, &data).build()
    };
    let factors = |values: &[f32]| with_factors("rope_freqs.weight", values);
    let kv_heads = |values: &[u32]| Some(Value::Array(Array::U32(values.to_vec())));
    let heads = "llama.attention.head_count";
    vec![
        seed("ok-gguf", "", with_changes(&pairs(), &[]).build()),
        seed("ok-gguf_rope_factors", "", factors(&[1.0; 8])),
        seed("Config-gguf_rope_factors_of_another_size", "7 factors for 8 frequencies", factors(&[1.0; 7])),
        seed("Config-gguf_rope_factor_0", "a factor must be positive", factors(&[0.0; 8])),
        seed("MissingTensors-gguf_short_factors", "rope_factors_short", {
            with_factors("rope_factors_long.weight", &[1.0; 8])
        }),
        case("ok-gguf_heads_by_layer", "", "llama.attention.head_count_kv", kv_heads(&[2, 2])),
        case(
            "Unsupported-gguf_heads_differ",
            "not the same in all",
            "llama.attention.head_count_kv",
            kv_heads(&[2, 1]),
        ),
        case("Config-gguf_heads_of_3_layers", "3 entries for 2", "llama.attention.head_count_kv", kv_heads(&[2; 3])),
        case("MissingKey-gguf_architecture", "general.architecture", "general.architecture", None),
        case("MissingKey-gguf_heads", heads, heads, None),
        case("WrongType-gguf_heads", heads, heads, Some(Value::String("4".into()))),
        case("OutOfRange-gguf_heads", heads, heads, Some(Value::I32(-4))),
        case("Config-gguf_heads_0", "num_attention_heads must be between 1", heads, Some(Value::U32(0))),
        case("Config-gguf_context_0", "max_position", "llama.context_length", Some(Value::U32(0))),
        case("Config-gguf_layers_huge", "num_hidden_layers", "llama.block_count", Some(Value::U64(u64::MAX))),
        case("Config-gguf_rope_over_the_head", "more than the 16", "llama.rope.dimension_count", Some(Value::U32(18))),
        case("Unsupported-gguf_part_of_a_head", "of 8", "llama.rope.dimension_count", Some(Value::U32(8))),
        case("Unsupported-gguf_experts", "experts", "llama.expert_count", Some(Value::U32(8))),
        case("Unsupported-gguf_scale", "scale is 0.5; only 0 is", "llama.attention.scale", Some(Value::F32(0.5))),
        case("Unsupported-gguf_rope_type", "su", "llama.rope.scaling.type", Some(Value::String("su".into()))),
        case("UnsupportedArchitecture-gguf", "mamba", "general.architecture", Some(Value::String("mamba".into()))),
    ]
}
