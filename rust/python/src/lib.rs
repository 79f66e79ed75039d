//! The only crate that names pyo3: the extension module nanovllm._core.
//!
//! A shim: arguments are checked and turned into plain Rust, errors into Python exceptions, and the work is done by the
//! other crates with the GIL released. `python/nanovllm/_core.pyi` is its face; `stubtest` holds the two together.

mod arguments;
mod by_hand;
mod call;
mod cli;
mod config;
mod device;
mod door;
mod ended;
mod engine;
mod errors;
mod files;
mod guarded;
mod hub;
mod outcome;
mod quant;
mod signals;
mod tokenizer;

/// The engine behind the package `nanovllm`.
#[pyo3::pymodule]
mod _core {
    // The engine, its files and its devices.
    #[pymodule_export]
    use crate::arguments::{check_sampling_params, sampling_defaults};
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::cli::run_command;
    #[pymodule_export]
    use crate::config::Checkpoint;
    #[pymodule_export]
    use crate::device::{device_names, instruction_sets, memory};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::files::{GgufFile, SafeTensors, TensorInfo, architectures};
    #[pymodule_export]
    use crate::hub::Hub;
    #[pymodule_export]
    use crate::outcome::FinishedSequence;
    #[pymodule_export]
    use crate::quant::{dequantize, ggml_types, quantize};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;

    // Stepping by hand.
    #[pymodule_export]
    use crate::by_hand::block::PyBlock;
    #[pymodule_export]
    use crate::by_hand::block_manager::PyBlockManager;
    #[pymodule_export]
    use crate::by_hand::handle::PySequence;
    #[pymodule_export]
    use crate::by_hand::layers::activation::SiluAndMul;
    #[pymodule_export]
    use crate::by_hand::layers::attention::{Attention, store_kvcache};
    #[pymodule_export]
    use crate::by_hand::layers::embed_head::VocabParallel;
    #[pymodule_export]
    use crate::by_hand::layers::layernorm::RMSNorm;
    #[pymodule_export]
    use crate::by_hand::layers::linear::Linear;
    #[pymodule_export]
    use crate::by_hand::layers::parameter::{Parameter, divide};
    #[pymodule_export]
    use crate::by_hand::layers::rotary_embedding::{RotaryEmbedding, apply_rotary_emb};
    #[pymodule_export]
    use crate::by_hand::layers::sampler::{exponential_noise, sample};
    #[pymodule_export]
    use crate::by_hand::model_inputs::{
        graph_batch_size, graph_batch_sizes, prepare_block_tables, prepare_decode, prepare_prefill, prepare_sample,
    };
    #[pymodule_export]
    use crate::by_hand::model_runner::ModelRunner;
    #[pymodule_export]
    use crate::by_hand::models::qwen3::Qwen3;
    #[pymodule_export]
    use crate::by_hand::scheduler::PyScheduler;

    /// The version of the package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)] // Python's name for it
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
