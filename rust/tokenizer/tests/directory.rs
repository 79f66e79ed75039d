//! Tokenizers from Hugging Face directories.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs;

use common::{Builder, id, tokens};
use nanovllm_tokenizer::{ChatOptions, Error, Settings, Side, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the tokenizer of [`Builder`] and the files given.
fn dir(files: &[(&str, Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Builder::new("smollm").tokenizer().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    dir
}

fn load(files: &[(&str, Value)]) -> Result<Tokenizer, Error> {
    Tokenizer::from_dir(dir(files).path())
}

#[test]
fn tokenizer_json_alone_is_enough() {
    let tokenizer = load(&[]).unwrap();
    assert_eq!(tokenizer.encode("hello world", true).unwrap(), [id("hello"), id("Ġworld")]);
    assert_eq!((tokenizer.eos_token_ids(), tokenizer.bos_token(), tokenizer.chat_template()), (&[][..], None, None));
}

#[test]
fn eos_is_the_union_with_the_tokenizer_s_own_first() {
    let own = (
        "tokenizer_config.json",
        json!({"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|eot|>", "bos_token": null}),
    );
    let config = ("config.json", json!({"eos_token_id": id("<|eot|>")}));
    let generation = ("generation_config.json", json!({"eos_token_id": [id("<|eot|>"), id("<|im_end|>"), 7]}));
    let tokenizer = load(&[own, config.clone(), generation.clone()]).unwrap();
    assert_eq!(tokenizer.eos_token_ids(), [id("<|im_end|>"), id("<|eot|>"), 7]);
    assert_eq!(tokenizer.eos_token_id(), Some(id("<|im_end|>")));
    assert_eq!((tokenizer.bos_token(), tokenizer.pad_token_id()), (None, Some(id("<|eot|>"))));
    assert_eq!(load(&[config, generation]).unwrap().eos_token_ids()[0], id("<|eot|>"));
    // Of a model of text and images, where the decoder is described or outside of it.
    let inner = json!({"text_config": {"eos_token_id": 5}});
    assert_eq!(load(&[("config.json", inner)]).unwrap().eos_token_ids(), [5]);
    let both = json!({"eos_token_id": 6, "text_config": {"eos_token_id": 5}});
    assert_eq!(load(&[("config.json", both)]).unwrap().eos_token_ids(), [6]);
    let map = ("special_tokens_map.json", json!({"eos_token": "<|eot|>"}));
    assert_eq!(load(&[map]).unwrap().eos_token(), Some("<|eot|>"));
}

#[test]
fn added_tokens_of_the_config_are_added() {
    let next = tokens().len() as u32;
    let declared = |id: u32| {
        json!({"added_tokens_decoder": {
            (id + 1).to_string(): {"content": "<b>", "special": false},
            id.to_string(): {"content": "<a>", "special": true},
            "0": {"content": "<|im_end|>", "special": true},
        }})
    };
    let tokenizer = load(&[("tokenizer_config.json", declared(next))]).unwrap();
    assert_eq!(tokenizer.encode("<b>hello<a>", false).unwrap(), [next + 1, id("hello"), next]);
    assert_eq!(tokenizer.decode(&[next, next + 1], true).unwrap(), "<b>");
    let error = load(&[("tokenizer_config.json", declared(next + 5))]).unwrap_err();
    assert!(matches!(error, Error::AddedTokenId { .. }), "{error}");
}

#[test]
fn a_token_with_a_role_is_matched_whole() {
    let tokenizer = load(&[("tokenizer_config.json", json!({"pad_token": "Ġ"}))]).unwrap();
    assert_eq!(tokenizer.pad_token_id(), Some(id("Ġ")));
    let absent = load(&[("tokenizer_config.json", json!({"pad_token": "[PAD]"}))]).unwrap();
    assert_eq!((absent.pad_token(), absent.pad_token_id()), (Some("[PAD]"), None));
    assert_eq!(absent.vocab_size(), tokens().len());
}

#[test]
fn the_llama_class_obeys_its_flags_and_others_do_not() {
    let config = |class: &str| {
        let config = json!({"tokenizer_class": class, "add_bos_token": true, "add_eos_token": true,
                            "bos_token": "<|bos|>", "eos_token": "<|eot|>"});
        load(&[("tokenizer_config.json", config)]).unwrap().encode("hello", true).unwrap()
    };
    assert_eq!(config("LlamaTokenizerFast"), [id("<|bos|>"), id("hello"), id("<|eot|>")]);
    assert_eq!(config("PreTrainedTokenizerFast"), [id("hello")]);
}

#[test]
fn templates_come_from_their_file_first() {
    let config = json!({"chat_template": "from config"});
    let dir = dir(&[("tokenizer_config.json", config)]);
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().chat_template(), Some("from config"));
    fs::write(dir.path().join("chat_template.jinja"), "from file").unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().chat_template(), Some("from file"));

    let named =
        json!({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]});
    let tokenizer = load(&[("tokenizer_config.json", named)]).unwrap();
    let tools = ChatOptions { tools: Some(json!([])), ..ChatOptions::default() };
    assert_eq!(tokenizer.chat_template(), Some("plain"));
    assert_eq!(tokenizer.apply_chat_template(&json!([]), &tools).unwrap(), "tools");
}

#[test]
fn broken_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_dir(empty.path()).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("tokenizer.json")), "{error}");
    for (file, content, part) in [
        ("tokenizer.json", json!({"model": 1}), "tokenizer.json"),
        ("tokenizer.json", json!([]), "tokenizer.json"),
        (
            "tokenizer.json",
            json!({"model": {"type": "BPE", "vocab": {}, "merges": []}, "decoder": 5}),
            "tokenizer.json",
        ),
        ("tokenizer_config.json", json!([1]), "tokenizer_config.json"),
        ("tokenizer_config.json", json!({"chat_template": 5}), "chat_template is 5"),
        ("tokenizer_config.json", json!({"chat_template": [{"name": "x"}]}), "chat_template"),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"x": {"content": "y"}}}), "added_tokens_decoder"),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"1": {}}}), "added_tokens_decoder"),
        ("config.json", json!({"eos_token_id": -1}), "eos_token_id is -1"),
        ("generation_config.json", json!({"eos_token_id": [1, "2"]}), "eos_token_id"),
        ("tokenizer_config.json", json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}), "add_bos_token"),
    ] {
        let message = load(&[(file, content)]).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should contain {part:?}");
    }
}

#[test]
fn named_templates_come_from_their_folder() {
    let config =
        json!({"chat_template": [{"name": "default", "template": "config"}, {"name": "rag", "template": "r"}]});
    let dir = dir(&[("tokenizer_config.json", config)]);
    let folder = dir.path().join("additional_chat_templates");
    let named = |tokenizer: &Tokenizer, name: &str| {
        let options = ChatOptions { template: Some(name.into()), ..ChatOptions::default() };
        tokenizer.apply_chat_template(&json!([]), &options).unwrap()
    };
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("README.md"), "no template").unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.chat_template(), named(&tokenizer, "rag")), (Some("config"), "r".to_owned()));

    // Files take the place of all that the configuration has.
    fs::write(folder.join("tool_use.jinja"), "tools").unwrap();
    fs::write(folder.join("brief.jinja"), "brief").unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.chat_template(), None);
    let error = tokenizer.apply_chat_template(&json!([]), &ChatOptions::default()).unwrap_err().to_string();
    assert!(error.contains("it has brief, tool_use"), "{error}");

    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let tools = ChatOptions { tools: Some(json!([])), ..ChatOptions::default() };
    assert_eq!(tokenizer.chat_template(), Some("file"));
    assert_eq!(named(&tokenizer, "brief"), "brief");
    assert_eq!(named(&tokenizer, "rag"), "rag", "the configuration's is gone, so this is a template itself");
    assert_eq!(tokenizer.apply_chat_template(&json!([]), &tools).unwrap(), "tools");
}

#[test]
fn template_files_are_read_within_bounds() {
    let dir = dir(&[]);
    let folder = dir.path().join("additional_chat_templates");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("large.jinja"), "x".repeat(3 << 20)).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let large = ChatOptions { template: Some("large".into()), ..ChatOptions::default() };
    let error = tokenizer.apply_chat_template(&json!([]), &large).unwrap_err();
    assert!(matches!(error, Error::TemplateLimit { .. }), "{error}");
    for number in 0..64 {
        fs::write(folder.join(format!("{number}.jinja")), "").unwrap();
    }
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, Error::TooManyTemplates { limit: 64, .. }), "{error}");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("binary.jinja"), [0xff]).unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("binary.jinja")), "{error}");
}

#[test]
fn settings_are_those_of_the_configuration() {
    let settings =
        |config: Value| load(&[("tokenizer_config.json", config)]).map(|tokenizer| tokenizer.settings().clone());
    assert_eq!(settings(json!({})).unwrap(), Settings::default());
    let all = json!({"model_max_length": 512, "padding_side": "left", "truncation_side": "left",
                     "clean_up_tokenization_spaces": true, "model_input_names": ["input_ids"]});
    let expected = Settings {
        model_max_length: Some(512),
        padding_side: Side::Left,
        truncation_side: Side::Left,
        clean_up_tokenization_spaces: true,
        model_input_names: vec!["input_ids".into()],
    };
    assert_eq!(settings(all).unwrap(), expected);
    let null = json!({"model_max_length": null, "padding_side": null, "clean_up_tokenization_spaces": null});
    assert_eq!(settings(null).unwrap(), Settings::default());
    for large in [json!(1e30), serde_json::from_str("1000000000000000019884624838656").unwrap()] {
        assert_eq!(settings(json!({"model_max_length": large})).unwrap().model_max_length, None);
    }
    assert_eq!(settings(json!({"max_len": 7})).unwrap().model_max_length, Some(7));
    for class in ["LlamaTokenizerFast", "CodeLlamaTokenizer"] {
        assert_eq!(settings(json!({"tokenizer_class": class})).unwrap().padding_side, Side::Left);
    }
    let right = json!({"tokenizer_class": "LlamaTokenizer", "padding_side": "right"});
    assert_eq!(settings(right).unwrap().padding_side, Side::Right);
    for (config, part) in [
        (json!({"padding_side": "up"}), "padding_side is \"up\"; expected \"left\" or \"right\""),
        (json!({"truncation_side": 1}), "truncation_side is 1"),
        (json!({"model_max_length": -1}), "model_max_length is -1; expected a number of tokens"),
        (json!({"clean_up_tokenization_spaces": "no"}), "clean_up_tokenization_spaces"),
        (json!({"model_input_names": [1]}), "model_input_names"),
    ] {
        let message = settings(config).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should contain {part:?}");
    }
}

#[test]
fn padding_and_truncation_of_tokenizer_json_are_defaults_at_most() {
    let dir = dir(&[]);
    let path = dir.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    file["truncation"] = json!({"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Left"});
    file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Left", "pad_id": id("<|eot|>"), "pad_type_id": 0,
                             "pad_token": "<|eot|>", "pad_to_multiple_of": null});
    fs::write(&path, file.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("hello world", true).unwrap(), [id("hello"), id("Ġworld")]);
    assert_eq!((tokenizer.settings().padding_side, tokenizer.settings().truncation_side), (Side::Left, Side::Left));
    assert_eq!(tokenizer.pad_token(), Some("<|eot|>"));
    let config = json!({"pad_token": null, "padding_side": "right"});
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.pad_token(), tokenizer.settings().padding_side), (None, Side::Right));
}

#[test]
fn additional_special_tokens_are_special() {
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let config = json!({"eos_token": "<|im_end|>", key: ["Ġ", {"content": "hello"}, "hello", "absent"]});
        let tokenizer = load(&[("tokenizer_config.json", config)]).unwrap();
        assert_eq!(tokenizer.special_tokens(), [("eos_token", "<|im_end|>")]);
        assert_eq!(tokenizer.additional_special_tokens(), ["Ġ", "hello"]);
        assert_eq!(tokenizer.decode(&[id("hello"), id("is")], true).unwrap(), "is");
    }
}
