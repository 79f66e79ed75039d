//! Fuzz targets for the parsers of model files and for chat templates, and the corpus they start from.
//!
//! Each module is one target: it does with the bytes all that loading a file would do, and returns the error that a
//! user would see. A panic, a crash or an endless loop is a finding. `run.sh` (`make fuzz`) runs the targets under libFuzzer
//! with the address sanitizer; `tests/replay.rs` runs them over the corpus without it.

pub mod chat_template;
pub mod config;
pub mod gguf;
pub mod safetensors;
pub mod tokenizer_directory;
pub mod tokenizer_gguf;

use std::fmt::Debug;

/// The names of the targets; each has a folder in `corpus`.
pub const TARGETS: [&str; 6] =
    ["gguf", "safetensors", "config", "tokenizer_gguf", "tokenizer_directory", "chat_template"];

/// An error, in the words that the corpus and its tests use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the error's variant; where one crate returns an error of another, that of the inner one.
    pub kind: String,
    /// The message that a user reads.
    pub text: String,
}

/// Runs the target called `name` on `data`.
///
/// # Errors
/// What is wrong with the data.
///
/// # Panics
/// For a name that is not in [`TARGETS`], and for what the target itself asserts.
pub fn run(name: &str, data: &[u8]) -> Result<(), Finding> {
    match name {
        "gguf" => gguf::run(data).map_err(|error| finding(&error)),
        "safetensors" => safetensors::run(data).map_err(|error| finding(&error)),
        "config" => config::run(data).map_err(|error| finding(&error)),
        "tokenizer_gguf" => tokenizer_gguf::run(data).map_err(|error| finding(&error)),
        "tokenizer_directory" => tokenizer_directory::run(data).map_err(|error| finding(&error)),
        "chat_template" => chat_template::run(data).map_err(|error| finding(&error)),
        other => panic!("there is no target called {other:?}"),
    }
}

fn finding<E: Debug + ToString>(error: &E) -> Finding {
    let debug = format!("{error:?}");
    let variant = debug.strip_prefix("Gguf(").unwrap_or(&debug);
    let kind = variant.chars().take_while(|c| c.is_alphanumeric()).collect();
    Finding { kind, text: error.to_string() }
}
