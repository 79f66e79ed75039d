//! The command `nanovllm`: one file a sub-command, one folder where it takes several.
//!
//! The Python package's console script calls [`run`]; nothing here knows Python. What a user calls a model (a path, or a
//! repository's name) becomes a path through the caller's [`Host`], because fetching is Python's business.

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
            // Help and version are "errors" that belong on standard output; a closed pipe is nobody's problem.
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
