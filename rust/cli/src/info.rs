//! `nanovllm info` says what a model is, how much memory it needs, and how fast it can be on this machine.

mod bandwidth;
mod report;
mod text;

use std::io::{self, Write};

use crate::error::Error;
use crate::host::Host;
use crate::model_files::ModelFiles;
use crate::units::printable;

/// Describe a model: architecture, quantisation, memory, speed to expect on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A directory, a .gguf file, or a Hugging Face repository (owner/name or owner/name:file.gguf)
    model: String,
    /// Length in tokens at which to reckon the KV cache [default: the model's own, at most 4096]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    context: Option<u64>,
    /// Threads for measuring the memory's bandwidth [default: as many as the machine offers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, host: &Host<'_>) -> Result<(), Error> {
    let path = (host.resolve)(&args.model).map_err(Error::Model)?;
    let files = ModelFiles::open(&path)?;
    for note in files.config().map_or_else(|_| Vec::new(), |config| config.notes()) {
        eprintln!("nanovllm: warning: {}", printable(&note));
    }
    let offered = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or_else(offered, usize::from);
    let report = report::Report::new(&path, &files, args.context, args.tensors, bandwidth::measure(threads));
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        text::write(&report, &mut out)?;
    }
    out.flush()?;
    Ok(())
}
