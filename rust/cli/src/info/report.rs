//! What `nanovllm info` says about a model.

use std::collections::BTreeMap;
use std::path::Path;

use nanovllm_backend::KvCacheSpec;
use nanovllm_gguf::GgmlType;
use nanovllm_model::{BaseConfig, ModelConfig};
use nanovllm_tokenizer::Tokenizer;
use serde::Serialize;

use super::bandwidth::Bandwidth;
use crate::model_files::{ListedTensor, ModelFiles};

/// The description of a model. `--json` prints these fields under these names.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) path: String,
    /// "GGUF v3" or "safetensors".
    pub(crate) format: String,
    /// What the model calls itself, if it does.
    pub(crate) name: Option<String>,
    pub(crate) architecture: String,
    /// Why the engine cannot run the model; `None` if it can.
    pub(crate) unsupported: Option<String>,
    pub(crate) parameters: u64,
    /// The parameters that a token is computed with: all but those of the experts that it does not go through.
    pub(crate) active_parameters: u64,
    pub(crate) bits_per_weight: f64,
    /// The tensors by element type, most bytes first.
    pub(crate) quantization: Vec<Tally>,
    /// The tensors by what they are for, in the order of a forward pass.
    pub(crate) kinds: Vec<Tally>,
    pub(crate) shape: Option<ModelShape>,
    pub(crate) tokenizer: TokenizerReport,
    pub(crate) memory: Memory,
    pub(crate) speed: Option<Speed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tensors: Option<Vec<ListedTensor>>,
}

/// How many tensors of some type or kind there are, and how large.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Tally {
    pub(crate) name: String,
    pub(crate) tensors: usize,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
}

/// The sizes of a model, under the names of `config.json`.
#[derive(Debug, Serialize)]
pub(crate) struct ModelShape {
    pub(crate) num_hidden_layers: usize,
    /// Experts of a layer; `None` in a model without.
    pub(crate) num_experts: Option<usize>,
    /// How many of them a token goes through.
    pub(crate) num_experts_per_tok: Option<usize>,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) tie_word_embeddings: bool,
}

/// The tokenizer, or why it cannot be used.
#[derive(Debug, Serialize)]
pub(crate) struct TokenizerReport {
    pub(crate) vocab_size: Option<usize>,
    pub(crate) eos_token_ids: Vec<u32>,
    pub(crate) chat_template: Option<String>,
    pub(crate) unsupported: Option<String>,
}

/// How much memory a model needs, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// What the weights take in the file.
    pub(crate) weight_bytes: u64,
    /// What they take once loaded by the CPU device, which keeps codebooks as tables of more bits.
    pub(crate) loaded_bytes: u64,
    /// How many tokens the KV cache is to hold; `None`, like the rest, for a model that does not run here.
    pub(crate) context: Option<u64>,
    pub(crate) kv_cache_dtype: Option<String>,
    pub(crate) kv_cache_bytes: Option<u64>,
}

/// How fast reading memory allows decoding to be, for one sequence at a time.
#[derive(Debug, Serialize)]
pub(crate) struct Speed {
    pub(crate) bandwidth: Bandwidth,
    /// How many bytes are read for one token with an empty cache.
    pub(crate) bytes_per_token: u64,
    /// The highest speed with an empty cache.
    pub(crate) tokens_per_second: f64,
    /// The highest speed with a cache of `memory.context` tokens.
    pub(crate) tokens_per_second_at_context: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        path: &Path,
        files: &ModelFiles,
        context: Option<u64>,
        list_tensors: bool,
        bandwidth: Option<Bandwidth>,
    ) -> Self {
        let tensors = files.tensors();
        let config = files.config();
        let parameters: u64 = tensors.iter().map(ListedTensor::elements).sum();
        let weight_bytes: u64 = tensors.iter().map(|t| t.bytes).sum();
        let memory = memory(&tensors, config.as_ref().ok(), weight_bytes, context);
        let experts = config.as_ref().ok().and_then(ModelConfig::experts);
        let share = Share(experts);
        let speed = bandwidth.filter(|_| weight_bytes > 0).map(|bandwidth| speed(&tensors, share, bandwidth, &memory));
        let (format, name, architecture) = identity(files);
        Self {
            path: path.display().to_string(),
            format,
            name,
            architecture,
            unsupported: config.as_ref().err().map(ToString::to_string),
            parameters,
            active_parameters: tensors.iter().map(|tensor| share.of(tensor, tensor.elements())).sum(),
            bits_per_weight: if parameters == 0 { 0.0 } else { weight_bytes as f64 * 8.0 / parameters as f64 },
            quantization: tallies(&tensors, |t| t.dtype.name().to_owned(), |a, b| b.bytes.cmp(&a.bytes)),
            kinds: tallies(&tensors, |t| kind(&t.name).to_owned(), |a, b| order(&a.name).cmp(&order(&b.name))),
            shape: config.ok().map(|config| ModelShape::new(&config.base, experts)),
            tokenizer: TokenizerReport::new(files),
            memory,
            speed,
            tensors: list_tensors.then_some(tensors),
        }
    }
}

/// The format, the name and the architecture of a model.
fn identity(files: &ModelFiles) -> (String, Option<String>, String) {
    match files {
        ModelFiles::Gguf(file) => {
            let text = |key| match file.metadata().get(key) {
                Some(nanovllm_gguf::Value::String(text)) => Some(text.clone()),
                _ => None,
            };
            let architecture = text("general.architecture").unwrap_or_else(|| "unknown".to_owned());
            (format!("GGUF v{}", file.version()), text("general.name"), architecture)
        }
        ModelFiles::SafeTensors { checkpoint, .. } => {
            let raw = &checkpoint.config().raw;
            let architecture = raw["architectures"][0].as_str().unwrap_or("unknown").to_owned();
            let name = raw["_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
            ("safetensors".to_owned(), name, architecture)
        }
    }
}

/// The part of a model's weights that a token goes through: how many experts a layer has, and how many of them a token needs.
#[derive(Clone, Copy)]
struct Share(Option<(usize, usize)>);

impl Share {
    /// The part of `all`, of elements or bytes of this tensor.
    fn of(self, tensor: &ListedTensor, all: u64) -> u64 {
        let is_experts = kind(&tensor.name) == "experts" && !tensor.name.ends_with("scale");
        match self.0.filter(|_| is_experts) {
            Some((count, per_token)) => (u128::from(all) * per_token as u128 / count.max(1) as u128) as u64,
            None => all,
        }
    }
}

const KINDS: [&str; 7] = ["embedding", "attention", "mlp", "experts", "norm", "output", "other"];

fn order(kind: &str) -> usize {
    KINDS.iter().position(|&k| k == kind).unwrap_or(KINDS.len())
}

/// What a tensor is for, by GGUF's or Hugging Face's name.
fn kind(name: &str) -> &'static str {
    let has = |part| name.contains(part);
    if has("norm") {
        "norm"
    } else if has("token_embd") || has("embed_tokens") {
        "embedding"
    } else if has("attn") {
        "attention"
    } else if has("_exps.") || has(".experts.") {
        "experts"
    } else if has("ffn") || has("mlp") || has("router") {
        "mlp"
    } else if name.starts_with("output.") || name.starts_with("lm_head.") {
        "output"
    } else {
        "other"
    }
}

fn tallies(
    tensors: &[ListedTensor],
    key: impl Fn(&ListedTensor) -> String,
    order: impl FnMut(&Tally, &Tally) -> std::cmp::Ordering,
) -> Vec<Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for tensor in tensors {
        let name = key(tensor);
        let tally = tallies.entry(name.clone()).or_insert_with(|| Tally { name, ..Tally::default() });
        tally.tensors += 1;
        tally.parameters += tensor.elements();
        tally.bytes += tensor.bytes;
    }
    let mut tallies: Vec<Tally> = tallies.into_values().collect();
    tallies.sort_by(order);
    tallies
}

/// The context for a user who gives none, which is what the engine allows by default.
const DEFAULT_CONTEXT: usize = 4096;

fn memory(tensors: &[ListedTensor], config: Option<&ModelConfig>, weight_bytes: u64, context: Option<u64>) -> Memory {
    let loaded_bytes = tensors.iter().map(ListedTensor::loaded_bytes).sum();
    let Some(config) = config else {
        return Memory { weight_bytes, loaded_bytes, context: None, kv_cache_dtype: None, kv_cache_bytes: None };
    };
    let context = context.unwrap_or(config.base.max_position_embeddings.min(DEFAULT_CONTEXT) as u64);
    // The engine's choice: float32 for a float32 checkpoint, else bfloat16.
    let exact = tensors.iter().filter(|t| t.shape.len() > 1).all(|t| t.dtype == GgmlType::F32);
    let dtype = if exact { GgmlType::F32 } else { GgmlType::Bf16 };
    // A cache of one block of one token, to know what a token takes.
    let cache = KvCacheSpec { num_blocks: 1, block_size: 1, dtype, layers: config.cache_layers() };
    Memory {
        weight_bytes,
        loaded_bytes,
        context: Some(context),
        kv_cache_dtype: Some(dtype.name().to_owned()),
        kv_cache_bytes: Some((cache.block_bytes() as u64).saturating_mul(context)),
    }
}

/// For a token every weight is read once, but of an embedding that is not also the output projection only one row, and of experts
/// those that it goes through.
fn speed(tensors: &[ListedTensor], share: Share, bandwidth: Bandwidth, memory: &Memory) -> Speed {
    let untied = tensors.iter().any(|t| kind(&t.name) == "output");
    let read = tensors.iter().filter(|t| !(untied && kind(&t.name) == "embedding"));
    let bytes_per_token: u64 = read.map(|tensor| share.of(tensor, tensor.loaded_bytes())).sum();
    let limit = |bytes: u64| bandwidth.bytes_per_second / bytes.max(1) as f64;
    Speed {
        bandwidth,
        bytes_per_token,
        tokens_per_second: limit(bytes_per_token),
        tokens_per_second_at_context: memory.kv_cache_bytes.map(|kv| limit(bytes_per_token.saturating_add(kv))),
    }
}

impl TokenizerReport {
    fn new(files: &ModelFiles) -> Self {
        let tokenizer = match files {
            ModelFiles::Gguf(file) => Tokenizer::from_gguf(file.metadata()),
            ModelFiles::SafeTensors { dir, .. } => Tokenizer::from_dir(dir),
        };
        match tokenizer {
            Ok(t) => Self {
                vocab_size: Some(t.vocab_size()),
                eos_token_ids: t.eos_token_ids().to_vec(),
                chat_template: t.chat_template().map(str::to_owned),
                unsupported: None,
            },
            Err(error) => Self {
                vocab_size: None,
                eos_token_ids: Vec::new(),
                chat_template: None,
                unsupported: Some(error.to_string()),
            },
        }
    }
}

impl ModelShape {
    fn new(config: &BaseConfig, experts: Option<(usize, usize)>) -> Self {
        Self {
            num_experts: experts.map(|(count, _)| count),
            num_experts_per_tok: experts.map(|(_, per_token)| per_token),
            num_hidden_layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            tie_word_embeddings: config.tie_word_embeddings,
        }
    }
}
