//! From a config object of Python's to a model that is ready to run.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nanovllm_backend::{DType, Memory};
use nanovllm_devices::{Given, Options, host_memory, option_names};
use nanovllm_engine::EngineConfig;
use nanovllm_model::{CausalLm, LoadOptions, ModelConfig};
use nanovllm_tokenizer::Tokenizer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};
use serde_json::Value;

use crate::arguments::{Attributes, count, number, scheduling_policy, signed, text, unsigned};
use crate::errors::{device_error, engine_error, load_error_at, tokenizer_error_at};

/// A model's files, opened and not loaded yet.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Checkpoint {
    path: PathBuf,
    inner: Mutex<Option<nanovllm_model::Checkpoint>>,
    config_json: String,
}

#[pymethods]
impl Checkpoint {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner =
            py.detach(|| nanovllm_model::Checkpoint::open(&path)).map_err(|error| load_error_at(&path, &error))?;
        let config_json = with_defaults(inner.config()).to_string();
        Ok(Self { path, inner: Mutex::new(Some(inner)), config_json })
    }

    /// The model's config.json as JSON text, or its equivalent made from GGUF metadata, with what it leaves to transformers'
    /// defaults filled in. No weight is read.
    #[getter]
    fn config_json(&self) -> &str {
        &self.config_json
    }
}

impl Checkpoint {
    /// The files, for the first caller that asks for those at this path.
    fn take(&self, path: &Path) -> Option<nanovllm_model::Checkpoint> {
        if self.path != path {
            return None;
        }
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The keys of config.json that programs read and files leave out.
const DEFAULTED: [&str; 8] = [
    "attention_bias",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
];

/// config.json and, where it has no value, what the engine takes instead.
fn with_defaults(config: &ModelConfig) -> Value {
    let (mut values, mut known) = (config.raw.clone(), config.to_json());
    if let Some(values) = values.as_object_mut() {
        for key in DEFAULTED {
            let value = values.entry(key).or_insert(Value::Null);
            if value.is_null() {
                *value = known[key].take();
            }
        }
    }
    values
}

/// What a config object says.
pub(crate) struct Setup {
    path: PathBuf,
    /// The engine's own options, but for the end-of-sequence ids, which the tokenizer knows.
    pub(crate) engine: EngineConfig,
    device: String,
    options: Options,
}

/// A model ready to run.
pub(crate) struct Loaded {
    /// On its device, without a KV cache yet.
    pub(crate) model: Box<dyn CausalLm>,
    /// What its device has left for the KV cache.
    pub(crate) memory: Option<Memory>,
    pub(crate) tokenizer: Tokenizer,
}

impl Setup {
    /// Reads the attributes of `nanovllm.config.Config`; an object without one of them has its default.
    ///
    /// # Errors
    /// TypeError and ValueError that name the attribute.
    pub(crate) fn read(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let attributes = Attributes(config);
        let path = config.getattr("model")?.extract()?;
        let device = attributes.read("device", |value| text(value, "device"))?;
        let device = device.unwrap_or_else(|| "cpu".to_owned());
        let mut options = Options::default();
        for name in option_names() {
            if let Some(value) = attributes.read(name, |value| given(value, name))? {
                options.set(name, value);
            }
        }
        let engine = engine_config(config)?;
        // Before the weights are read: a wrong option should not cost a load.
        engine.validate().map_err(engine_error)?;
        Ok(Self { path, engine, device, options })
    }

    /// Loads the model with the GIL released, from files that were opened before or from its path.
    ///
    /// # Errors
    /// What is wrong with the files, the device or its options.
    pub(crate) fn load(&self, py: Python<'_>, checkpoint: Option<&Checkpoint>) -> PyResult<Loaded> {
        let opened = checkpoint.and_then(|checkpoint| checkpoint.take(&self.path));
        py.detach(|| {
            let checkpoint = match opened {
                Some(checkpoint) => checkpoint,
                None => {
                    nanovllm_model::Checkpoint::open(&self.path).map_err(|error| load_error_at(&self.path, &error))?
                }
            };
            let tokenizer = match checkpoint.gguf() {
                Some(file) => Tokenizer::from_gguf(file.metadata()),
                None => Tokenizer::from_dir(&self.path),
            };
            let tokenizer = tokenizer.map_err(|error| tokenizer_error_at(&self.path, &error))?;
            let device = nanovllm_devices::open(&self.device, &self.options).map_err(|error| device_error(&error))?;
            let share = |memory: Memory| (memory.available() as f64 * self.engine.gpu_memory_utilization) as u64;
            let memory = device.memory().map(share);
            let model = device.load(&checkpoint, LoadOptions { max_model_len: self.engine.max_model_len, memory });
            let model = model.map_err(|error| load_error_at(&self.path, &error))?;
            let memory = model.memory().or_else(host_memory);
            Ok(Loaded { model, memory, tokenizer })
        })
    }
}

/// The engine's own options among the attributes of a config object.
fn engine_config(config: &Bound<'_, PyAny>) -> PyResult<EngineConfig> {
    let (attributes, default) = (Attributes(config), EngineConfig::default());
    let count = |name: &'static str, default: usize| -> PyResult<usize> {
        Ok(attributes.read(name, |value| count(value, name))?.unwrap_or(default))
    };
    Ok(EngineConfig {
        max_num_batched_tokens: count("max_num_batched_tokens", default.max_num_batched_tokens)?,
        max_num_seqs: count("max_num_seqs", default.max_num_seqs)?,
        max_model_len: count("max_model_len", default.max_model_len)?,
        gpu_memory_utilization: attributes
            .read("gpu_memory_utilization", |value| number(value, "gpu_memory_utilization"))?
            .unwrap_or(default.gpu_memory_utilization),
        kvcache_block_size: count("kvcache_block_size", default.kvcache_block_size)?,
        num_kvcache_blocks: attributes
            .read("num_kvcache_blocks", |value| signed(value, "num_kvcache_blocks"))?
            .unwrap_or(default.num_kvcache_blocks),
        kv_cache_dtype: attributes.read("kv_cache_dtype", kv_cache_dtype)?.unwrap_or(default.kv_cache_dtype),
        seed: attributes.read("seed", |value| unsigned(value, "seed"))?.unwrap_or(default.seed),
        policy: attributes
            .read("scheduling_policy", unless_none(scheduling_policy))?
            .flatten()
            .unwrap_or(default.policy),
        max_inter_token_latency: attributes
            .read("max_inter_token_latency", unless_none(|value| number(value, "max_inter_token_latency")))?
            .flatten(),
        ..default
    })
}

/// The element type Python calls by this name; None for "auto", the model's own choice.
fn kv_cache_dtype(name: &Bound<'_, PyAny>) -> PyResult<Option<DType>> {
    match text(name, "kv_cache_dtype")?.as_str() {
        "auto" => Ok(None),
        "float32" => Ok(Some(DType::F32)),
        "bfloat16" => Ok(Some(DType::Bf16)),
        name => Err(PyValueError::new_err(format!(
            "kv_cache_dtype must be \"auto\", \"float32\" or \"bfloat16\", got {name:?}"
        ))),
    }
}

/// The value of a device's option.
fn given(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Given> {
    if value.is_none() {
        Ok(Given::Nothing)
    } else if value.is_instance_of::<PyString>() {
        Ok(Given::Text(value.extract()?))
    } else if value.is_instance_of::<PyBool>() {
        Err(PyTypeError::new_err(format!("{name} must be an integer, a text or None, got {value}")))
    } else {
        Ok(Given::Number(unsigned(value, name)?))
    }
}

/// Reads what may be None.
fn unless_none<T>(
    read: impl Fn(&Bound<'_, PyAny>) -> PyResult<T>,
) -> impl Fn(&Bound<'_, PyAny>) -> PyResult<Option<T>> {
    move |value| if value.is_none() { Ok(None) } else { read(value).map(Some) }
}
