//! What Python may set when it loads a model.

use std::path::{Path, PathBuf};

use nanovllm_backend::DType;
use nanovllm_engine::device::{self, LoadOptions, Loaded};
use nanovllm_model::{Checkpoint, ModelConfig};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::errors::{engine_error, load_error};

/// The element type Python calls `name`; None for "auto", the model's own choice.
pub(crate) fn kv_cache_dtype(name: &str) -> PyResult<Option<DType>> {
    match name {
        "auto" => Ok(None),
        "float32" => Ok(Some(DType::F32)),
        "bfloat16" => Ok(Some(DType::Bf16)),
        _ => Err(PyValueError::new_err(format!(
            "kv_cache_dtype must be \"auto\", \"float32\" or \"bfloat16\", got {name:?}"
        ))),
    }
}

/// Loads a model with the GIL released.
pub(crate) fn load(py: Python<'_>, path: &Path, options: &LoadOptions) -> PyResult<Loaded> {
    py.detach(|| device::load(path, options)).map_err(engine_error)
}

/// The model's config.json as JSON text, or its equivalent made from GGUF metadata, with what it leaves to transformers'
/// defaults filled in. No weight is read.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
pub(crate) fn read_config(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| Checkpoint::open(&path).map(|checkpoint| with_defaults(checkpoint.config()).to_string()))
        .map_err(|error| load_error(&error))
}

/// config.json and, where it has no value, what the engine takes instead.
fn with_defaults(config: &ModelConfig) -> Value {
    let mut values = config.raw.clone();
    let defaults = [
        ("attention_bias", json!(config.qkv_bias)),
        ("head_dim", json!(config.head_dim)),
        ("hidden_act", json!("silu")),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("rope_theta", json!(config.rope.theta)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
    ];
    if let Some(values) = values.as_object_mut() {
        for (key, value) in defaults {
            let known = values.entry(key).or_insert(Value::Null);
            if known.is_null() {
                *known = value;
            }
        }
    }
    values
}
