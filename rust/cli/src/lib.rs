//! The command `nanovllm`, with a module for each sub-command.
//!
//! ```
//! use std::ffi::OsString;
//!
//! use nanovllm_cli::{Host, run};
//! use nanovllm_gguf::{GgmlType, GgufFile, GgufWriter, Metadata, TensorSpec, Value};
//!
//! let folder = tempfile::tempdir()?;
//! let (model, output) = (folder.path().join("model.gguf"), folder.path().join("q8_0.gguf"));
//! let mut metadata = Metadata::default();
//! metadata.set("general.architecture", Value::String("llama".to_owned()));
//! let matrix = TensorSpec { name: "output.weight".to_owned(), dims: vec![32, 2], dtype: GgmlType::F32 };
//! let mut writer = GgufWriter::create(&model, &metadata, &[matrix])?;
//! writer.tensor("output.weight", &[0; 256])?;
//! writer.finish()?;
//!
//! let resolve = |name: &str| if name == "tiny" { Ok(model.clone()) } else { Err(format!("no model {name:?}")) };
//! let host = Host { resolve: &resolve, interrupted: &|| false };
//! let arguments = ["nanovllm", "quantize", "tiny", &output.to_string_lossy(), "--type", "Q8_0"].map(OsString::from);
//! assert_eq!(run(arguments, &host), 0);
//! assert_eq!(GgufFile::open(&output)?.tensors()[0].dtype, GgmlType::Q8_0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The console script of the Python package calls [`run`], but nothing here knows Python. What a user calls a model (a
//! path, or the name of a repository) becomes a path through the caller's [`Host`], since it is Python that downloads.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test that unwraps fails as it should

mod error;
mod host;
mod info;
mod model_files;
mod quantize;
mod units;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub use error::Error;
pub use host::Host;

/// LLM inference on the CPU with nano-vLLM's API.
#[derive(Debug, Parser)]
#[command(name = "nanovllm", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Info(info::Args),
    Quantize(quantize::Args),
}

/// Runs the command line `args`, the program's name first, and returns the process's exit code: 0, 1 for an error (one
/// line on standard error), 2 for a command line that makes no sense.
pub fn run(args: impl IntoIterator<Item = OsString>, host: &Host<'_>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, which prints them on standard output. A closed pipe is no failure.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match cli.command {
        Command::Info(args) => info::run(&args, host),
        Command::Quantize(args) => quantize::run(&args, host),
    };
    match result {
        Ok(()) | Err(Error::ClosedPipe) => 0,
        Err(error) => {
            eprintln!("nanovllm: {error}");
            1
        }
    }
}
