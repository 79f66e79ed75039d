//! The one place that names devices: from a path and options to a model behind [`CausalLm`].

use std::path::Path;

use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions};
use nanovllm_model::{CausalLm, Checkpoint, ModelConfig};
use nanovllm_tokenizer::Tokenizer;

use crate::EngineError;

/// Where and how a model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// The device: "cpu"; with the feature `candle` also "candle", and "candle-f32" with every weight widened to f32.
    pub device: String,
    /// Threads of the CPU device; as many as the machine offers when not given.
    pub num_threads: Option<usize>,
    /// Instruction set of the CPU device, by name; the best of the machine when not given.
    pub isa: Option<String>,
    /// Bits of the activations that quantised weights are multiplied with: 16, or 8 for speed where arithmetic is the limit.
    pub activation_bits: u64,
    /// Longest sequence that will be asked for, in tokens; the model's own limit holds too.
    pub max_model_len: usize,
}

/// A model ready to run.
pub struct Loaded {
    /// The model on its device, without a KV cache yet.
    pub model: Box<dyn CausalLm>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its hyperparameters.
    pub config: ModelConfig,
}

/// Loads the Hugging Face directory or the GGUF file at `path`.
///
/// # Errors
/// [`EngineError::Load`] and [`EngineError::Tokenizer`] for what is wrong with the files, [`EngineError::Config`] for an unknown
/// device, [`EngineError::Backend`] for an option this machine cannot honour.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, EngineError> {
    let checkpoint = Checkpoint::open(path)?;
    let config = checkpoint.config().clone();
    let tokenizer = match checkpoint.gguf() {
        Some(file) => Tokenizer::from_gguf(file.metadata())?,
        None => Tokenizer::from_dir(path)?,
    };
    let model = match options.device.as_str() {
        "cpu" => nanovllm_model::load(cpu(options)?, &checkpoint, options.max_model_len)?,
        #[cfg(feature = "candle")]
        name @ ("candle" | "candle-f32") => {
            let backend = candle(options, name == "candle-f32")?;
            nanovllm_model::load(backend, &checkpoint, options.max_model_len)?
        }
        other => {
            return Err(EngineError::Config { field: "device", expected: DEVICES, got: format!("{other:?}") });
        }
    };
    Ok(Loaded { model, tokenizer, config })
}

#[cfg(feature = "candle")]
const DEVICES: &str = r#""cpu", "candle" or "candle-f32""#;
#[cfg(not(feature = "candle"))]
const DEVICES: &str = r#""cpu" (this build lacks the feature "candle")"#;

fn cpu(options: &LoadOptions) -> Result<CpuBackend, EngineError> {
    let isa = options.isa.as_deref().map(str::parse).transpose()?;
    let activation_bits = match options.activation_bits {
        8 => ActivationBits::Eight,
        16 => ActivationBits::Sixteen,
        other => {
            let got = other.to_string();
            return Err(EngineError::Config { field: "activation_bits", expected: "8 or 16", got });
        }
    };
    Ok(CpuBackend::new(CpuOptions { num_threads: options.num_threads, isa, activation_bits })?)
}

/// candle has no options of its own; those of the CPU device are refused rather than ignored.
#[cfg(feature = "candle")]
fn candle(options: &LoadOptions, oracle: bool) -> Result<nanovllm_candle::CandleBackend, EngineError> {
    let refused = |field, expected, got| Err(EngineError::Config { field, expected, got });
    if let Some(threads) = options.num_threads {
        let expected = "None with candle, which takes its threads from RAYON_NUM_THREADS";
        return refused("num_threads", expected, threads.to_string());
    }
    if let Some(isa) = &options.isa {
        return refused("isa", "None with candle, which chooses its own", format!("{isa:?}"));
    }
    if options.activation_bits != 16 {
        let expected = "left at 16 with candle, whose formats choose their own";
        return refused("activation_bits", expected, options.activation_bits.to_string());
    }
    Ok(nanovllm_candle::CandleBackend::new(nanovllm_candle::CandleOptions { oracle }))
}
