//! GGUF files with vocabularies.

use nanovllm_gguf::{Array, Value};

use super::{Seed, seed, with_changes};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

fn strings(items: &[&str]) -> Value {
    Value::Array(Array::String(items.iter().map(|&item| item.into()).collect()))
}

fn pairs() -> Vec<(&'static str, Value)> {
    vec![
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("gpt-2".into())),
        (TOKENS, strings(&["a", "b", "c", "Ġ", "ab", "Ġab", "<s>", "<|im_start|>"])),
        (TYPES, Value::Array(Array::I32(vec![1, 1, 1, 1, 1, 1, 3, 4]))),
        (MERGES, strings(&["a b", "Ġ ab"])),
        ("tokenizer.ggml.eos_token_id", Value::U32(6)),
    ]
}

pub(super) fn seeds() -> Vec<Seed> {
    let changed = |changes: &[(&str, Option<Value>)]| with_changes(&pairs(), changes).build();
    let case = |name: &str, says: &str, key: &str, value: Value| seed(name, says, changed(&[(key, Some(value))]));
    let types = |types: &[i32]| Value::Array(Array::I32(types.to_vec()));
    let scores = Value::Array(Array::F32(vec![0.0; 7]));
    let begin = |id| [("tokenizer.ggml.add_bos_token", Some(Value::Bool(true))), ("tokenizer.ggml.bos_token_id", id)];
    let kind = |model: &str, scores: &[f32]| {
        let model = ("tokenizer.ggml.model", Some(Value::String(model.into())));
        let scores = ("tokenizer.ggml.scores", Some(Value::Array(Array::F32(scores.to_vec()))));
        changed(&[model, ("tokenizer.ggml.add_bos_token", Some(Value::Bool(false))), scores])
    };
    let mut seeds: Vec<Seed> = ["gpt-2", "smollm", "qwen2", "llama-bpe"]
        .iter()
        .map(|pre| {
            let pre_tokenizer = ("tokenizer.ggml.pre", Some(Value::String((*pre).into())));
            let begin = ("tokenizer.ggml.bos_token_id", Some(Value::U32(6)));
            seed(&format!("ok-{pre}"), "", changed(&[pre_tokenizer, begin]))
        })
        .collect();
    seeds.extend([
        seed("ok-without_types", "", changed(&[(TYPES, None)])),
        seed("ok-begins_with_a_token", "", changed(&begin(Some(Value::U32(6))))),
        case("ok-without_merges", "", MERGES, strings(&[])),
        case("ok-chat_template", "", "tokenizer.chat_template", Value::String("{% for m in messages %}".into())),
        case("Length-types_short", "7 entries", TYPES, types(&[1; 7])),
        case("Length-types_long", "9 entries", TYPES, types(&[1; 9])),
        case("Length-types_none", "0 entries", TYPES, types(&[])),
        case("Length-scores", "7 entries", "tokenizer.ggml.scores", scores),
        case("Length-tokens_short", "8 entries", TOKENS, strings(&["a", "b", "ab", "Ġ", "Ġab"])),
        case("Merge-unknown_left", "\"x\" is not in the vocabulary", MERGES, strings(&["x b"])),
        case("Merge-unknown_right", "\"x\" is not in the vocabulary", MERGES, strings(&["a b", "a x"])),
        case("Merge-unknown_result", "\"ba\" is not in the vocabulary", MERGES, strings(&["b a"])),
        case("Merge-one_token", "two tokens and a space", MERGES, strings(&["ab"])),
        case("Merge-nothing", "two tokens and a space", MERGES, strings(&[""])),
        case("Merge-twice", "appears twice", MERGES, strings(&["a b", "a b"])),
        case("DuplicateToken-same", "\"a\" has two ids", TOKENS, strings(&["a", "b", "a", "d", "e", "f", "g", "h"])),
        case("VocabularySize-0", "0 tokens", TOKENS, strings(&[])),
        case("TokenType-7", "unknown type 7", TYPES, types(&[1, 1, 1, 7, 1, 1, 1, 1])),
        case("TokenType-negative", "unknown type -1", TYPES, types(&[-1; 8])),
        case("SpecialTokenId-one_past", "outside", "tokenizer.ggml.eos_token_id", Value::U32(8)),
        case("SpecialTokenId-huge", "outside", "tokenizer.ggml.padding_token_id", Value::U64(u64::MAX)),
        case("OutOfRange-id_negative", "eos", "tokenizer.ggml.eos_token_id", Value::I32(-1)),
        case("OutOfRange-type_huge", "token_type", TYPES, Value::Array(Array::U32(vec![u32::MAX; 8]))),
        case("MissingSpecialToken-begin", "bos", "tokenizer.ggml.add_bos_token", Value::Bool(true)),
        case("UnsupportedModel-unigram", "\"t5\"", "tokenizer.ggml.model", Value::String("t5".into())),
        seed("ok-sentence_piece", "", kind("llama", &[0.0; 8])),
        seed("ok-gemma4", "", {
            let begin = ("tokenizer.ggml.bos_token_id", Some(Value::U32(6)));
            changed(&[("tokenizer.ggml.model", Some(Value::String("gemma4".into()))), begin])
        }),
        seed("Score-nan", "score of token 3", kind("llama", &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0])),
        seed("MissingSpecialToken-sentence_piece", "bos", {
            changed(&[("tokenizer.ggml.model", Some(Value::String("gemma4".into())))])
        }),
        // The beginning is then token 1, which this vocabulary has.
        seed("ok-llama_without_roles", "", changed(&[("tokenizer.ggml.model", Some(Value::String("llama".into())))])),
        case("UnknownPreTokenizer-new", "brand-new", "tokenizer.ggml.pre", Value::String("brand-new".into())),
        case("WrongType-tokens", "array of string", TOKENS, types(&[1, 2])),
        case("WrongType-merges", "array of string", MERGES, Value::String("a b".into())),
        seed("MissingKey-tokens", TOKENS, changed(&[(TOKENS, None)])),
        seed("MissingKey-merges", MERGES, changed(&[(MERGES, None)])),
    ]);
    seeds
}
