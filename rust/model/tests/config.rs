//! config.json of both transformers generations, and inverse frequencies against transformers' own.
#![allow(missing_docs)] // a test

use std::path::Path;

use nanovllm_model::{FAMILIES, LoadError, ModelConfig, RopeScaling};
use serde_json::{Value, json};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

fn without_raw(config: Value) -> ModelConfig {
    ModelConfig { raw: Value::Null, ..ModelConfig::from_json(config).expect("a good config") }
}

#[test]
fn both_generations_say_the_same() {
    for (name, family) in [("tiny_llama", "Llama"), ("tiny_qwen3", "Qwen3")] {
        let four = without_raw(golden(&format!("configs/{name}_transformers4.json")));
        let five = without_raw(golden(&format!("configs/{name}_transformers5.json")));
        assert_eq!(four, five);
        assert_eq!(four.family.row().name, family);
    }
}

/// The inverse frequencies of a model that is loaded for as many tokens as it can have, and the scale of attention.
fn frequencies(config: &ModelConfig) -> Result<(Vec<f64>, f64), LoadError> {
    config.base.rope.inverse_frequencies(config.base.head_dim, config.base.max_position_embeddings)
}

#[test]
fn inverse_frequencies_are_transformers() {
    let mut compared = 0;
    for (name, case) in golden("rope_scaling.json").as_object().expect("cases") {
        let mut config = golden("configs/tiny_llama_transformers4.json");
        for (key, value) in case["config"].as_object().expect("a config") {
            config[key] = value.clone();
        }
        let config = match ModelConfig::from_json(config) {
            Err(LoadError::Unsupported(what)) => {
                assert!(name.starts_with("dynamic") && what.contains("dynamic"), "{name}: {what}");
                continue;
            }
            other => other.expect("a good config"),
        };
        let (inverse, scale) = frequencies(&config).expect("good factors");
        let expected: Vec<f64> = serde_json::from_value(case["inv_freq"].clone()).expect("numbers");
        assert_eq!(inverse.len(), expected.len());
        for (got, expected) in inverse.iter().zip(expected) {
            assert!((got - expected).abs() <= 2e-6 * expected, "{name}: {got} is not {expected}");
        }
        assert!((scale - case["attention_factor"].as_f64().expect("a number")).abs() < 1e-6, "{name}");
        compared += 1;
    }
    assert!(compared >= 4, "default, linear, llama3 and yarn");
}

/// The message of the error that a change to a good config causes.
fn refused(key: &str, value: Value) -> String {
    let mut config = golden("configs/tiny_llama_transformers4.json");
    config[key] = value;
    ModelConfig::from_json(config).expect_err(key).to_string()
}

#[test]
fn what_is_wrong_is_named() {
    for (key, value, words) in [
        ("architectures", json!(["GPTBigCodeForCausalLM"]), "GPTBigCodeForCausalLM"),
        ("num_attention_heads", json!(0), "num_attention_heads must be between 1"),
        ("num_attention_heads", json!(3), "multiple of num_key_value_heads"),
        ("hidden_size", json!(-1), "hidden_size must be a non-negative integer"),
        ("hidden_size", json!(u64::MAX), "hidden_size must be between"),
        ("vocab_size", json!("many"), "vocab_size"),
        ("head_dim", json!(15), "even"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("rope_theta", json!(0.0), "rope_theta"),
        ("rope_scaling", json!({"rope_type": "dynamic"}), "dynamic"),
        ("rope_scaling", json!({"rope_type": "longrope"}), "rope_scaling.short_factor is missing"),
        ("rope_scaling", json!({"type": "linear"}), "rope_scaling.factor is missing"),
        ("quantization_config", json!({"quant_method": "awq"}), "quantization_config"),
        ("intermediate_size", Value::Null, "intermediate_size is missing"),
    ] {
        let message = refused(key, value);
        assert!(message.contains(words), "{key}: {message}");
    }
    assert!(ModelConfig::from_json(json!([])).is_err());
    assert!(ModelConfig::from_json(json!({})).is_err());
}

/// A family is found by its class, its type or GGUF's name, and whoever asks for another is told of all of them.
#[test]
fn the_registry_knows_its_families() {
    for row in FAMILIES {
        for named in
            [json!({"architectures": [row.hugging_face.class]}), json!({"model_type": row.hugging_face.model_type})]
        {
            let mut config = golden("configs/tiny_llama_transformers4.json");
            // What is not refused of a Gemma or of experts in GGUF, and what makes a hybrid Granite a dense one.
            config["query_pre_attn_scalar"] = config["head_dim"].clone();
            config["layer_types"] =
                vec!["full_attention"; config["num_hidden_layers"].as_u64().expect("a number") as usize].into();
            config["num_local_experts"] = json!(if row.name.ends_with("Moe") || row.name == "GptOss" { 8 } else { 0 });
            config["norm_topk_prob"] = json!(true);
            for key in ["architectures", "model_type"] {
                config[key] = named.get(key).cloned().unwrap_or(Value::Null);
            }
            let config = ModelConfig::from_json(config).expect("a good config");
            assert_eq!(config.family.row().name, row.name);
            assert_eq!(config.to_json()["architectures"], json!([row.hugging_face.class]));
            let gguf = config.to_gguf().expect("keys for everything");
            assert_eq!(gguf[0].1, nanovllm_gguf::Value::String(row.gguf.to_owned()));
            assert_eq!(config.cache_layers().len(), config.base.num_hidden_layers);
        }
        let message = refused("architectures", json!(["MambaForCausalLM"]));
        assert!(message.contains(row.hugging_face.class) && message.contains(row.gguf), "{message}");
    }
}

/// What published files and other versions of transformers write for the same model.
#[test]
fn other_forms_say_the_same() {
    let case = |name: &str| golden(&format!("families/{name}.json"))["config"].clone();
    let same = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut changed = case(name);
        change(&mut changed);
        assert_eq!(without_raw(changed), without_raw(case(name)), "{name}");
    };
    // Numbers of layers since 5.15, and the class of a text alone.
    same("gemma4", &|config| {
        let layers = config["per_layer_config"].as_object().expect("layers").clone();
        config["per_layer_config"] = layers.into_iter().map(|(key, value)| (format!("0{key}"), value)).collect();
    });
    let mut text = case("gemma4_unified")["text_config"].clone();
    text["architectures"] = json!(["Gemma4UnifiedForCausalLM"]);
    assert_eq!(ModelConfig::from_json(text).expect("a good config").family.row().name, "Gemma4");
    // The name of transformers 4, beside the base.
    for name in ["ministral3", "gpt_oss"] {
        same(name, &|config| {
            config["rope_scaling"] = config["rope_parameters"].take();
            config["rope_theta"] = config["rope_scaling"]["rope_theta"].clone();
        });
    }
    same("gpt_oss", &|config| {
        config["experts_per_token"] = config["num_experts_per_tok"].clone();
        config["initial_context_length"] = json!(4096);
        config["swiglu_limit"] = json!(7.0);
    });
}

/// Of what config.json leaves out transformers' classes know something else than null says.
#[test]
fn what_is_left_out_is_not_null() {
    let with = |name: &str, changes: &[(&str, Option<Value>)]| {
        let mut config = golden(&format!("families/{name}.json"))["config"].clone();
        for (key, value) in changes {
            let object = config.as_object_mut().expect("an object");
            match value {
                Some(value) => object.insert((*key).to_owned(), value.clone()),
                None => object.remove(*key),
            };
        }
        ModelConfig::from_json(config).expect("a good config")
    };
    let ministral = with("ministral3", &[("rope_parameters", None)]);
    assert_eq!(ministral.base.rope.theta, 1e6);
    assert!(matches!(ministral.base.rope.scaling, RopeScaling::Yarn { factor: 16.0, .. }));
    let oss = with("gpt_oss", &[("rope_parameters", None), ("num_local_experts", None), ("layer_types", None)]);
    assert_eq!((oss.base.rope.theta, oss.base.qkv_bias), (150_000.0, true));
    let RopeScaling::Yarn { factor, truncate, .. } = oss.base.rope.scaling else { panic!("YaRN") };
    assert_eq!((factor, truncate), (32.0, false));
    assert_eq!(oss.to_json()["num_local_experts"], json!(128));
    let windows = |config: &ModelConfig| {
        let slides =
            |layer: &&nanovllm_backend::LayerCache| matches!(layer, nanovllm_backend::LayerCache::SlidingWindow { .. });
        config.cache_layers().iter().filter(slides).count()
    };
    let left_out = [("layer_types", None), ("sliding_window", None), ("max_window_layers", Some(json!(1)))];
    assert_eq!(windows(&with("qwen2_windows", &left_out)), 3);
    let null = [("layer_types", None), ("sliding_window", Some(Value::Null)), ("max_window_layers", Some(json!(1)))];
    assert_eq!(windows(&with("qwen2_windows", &null)), 0);
    let phi =
        with("phi3", &[("original_max_position_embeddings", None), ("max_position_embeddings", Some(json!(8192)))]);
    assert!(matches!(phi.base.rope.scaling, RopeScaling::LongRope { original_max_position: 4096, .. }));
}

/// What a file claims decides no allocation, and says nothing that nobody heeds.
#[test]
fn wide_heads_and_parts_of_heads_are_refused() {
    let refused = |name: &str, pointer: &str, key: &str, value: Value| {
        let mut config = golden(&format!("families/{name}.json"))["config"].clone();
        config.pointer_mut(pointer).expect("an object")[key] = value;
        ModelConfig::from_json(config).expect_err("a bad config").to_string()
    };
    let wide = json!({"head_dim": 1u64 << 40});
    let message = refused("gemma4", "", "per_layer_config", json!({"2": wide, "5": wide, "7": wide}));
    assert!(message.contains("head_dim must be between"), "{message}");
    let twice = refused("gemma4", "/per_layer_config", "02", json!({"head_dim": 16}));
    assert!(twice.contains("says what another key says"), "{twice}");
    let part = refused("gemma3", "/rope_parameters/full_attention", "partial_rotary_factor", json!(0.5));
    assert!(part.contains("heads rotated in part"), "{part}");
}

#[test]
fn bad_factors_are_refused() {
    for scaling in [
        RopeScaling::Linear { factor: 0.0 },
        RopeScaling::Linear { factor: f64::NAN },
        RopeScaling::Factors(vec![1.0; 3]),
        RopeScaling::Factors(vec![0.0; 8]),
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 4.0, high_freq_factor: 4.0, original_max_position: 8192 },
    ] {
        let mut config = without_raw(golden("configs/tiny_llama_transformers4.json"));
        config.base.rope.scaling = scaling;
        assert!(frequencies(&config).is_err(), "{:?}", config.base.rope);
    }
}
