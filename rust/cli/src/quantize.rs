//! `nanovllm quantize` writes a model to a GGUF file of another type.

mod conversion;
mod convert;
mod metadata;
mod mix;
mod source;
mod warnings;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use nanovllm_gguf::{GgmlType, GgufWriter, Metadata, TensorSpec, Value, can_quantize};

use self::conversion::Conversion;
use self::convert::Difference;
use self::mix::{Choice, MIXES, MXFP4_FILE, Mix, is_f32};
use self::source::{Source, SourceTensor};
use crate::error::Error;
use crate::host::Host;
use crate::units::{bytes, printable};

/// Quantise a model (safetensors or GGUF) into a GGUF file, with llama.cpp's mixes by name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A directory, a .gguf file, or a Hugging Face repository
    input: String,
    /// The GGUF file to write
    output: PathBuf,
    /// The mix of types, e.g. Q4_K_M, Q8_0, F16
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_mix)]
    mix: &'static Mix,
    /// Give every matrix the mix's main type
    #[arg(long)]
    pure: bool,
    /// Threads [default: as many as the machine offers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Replace the output file if there is one
    #[arg(long)]
    force: bool,
}

fn parse_mix(name: &str) -> Result<&'static Mix, String> {
    Mix::named(name).ok_or_else(|| {
        let known: Vec<&str> = MIXES.iter().map(|mix| mix.name).collect();
        format!(
            "known types: {} (for IQ1 to IQ3 there is no quantiser: they want an importance matrix)",
            known.join(", ")
        )
    })
}

pub(crate) fn run(args: &Args, host: &Host<'_>) -> Result<(), Error> {
    // This comes before the input is looked for, which may mean to download it.
    if args.output.exists() && !args.force {
        return Err(Error::Option(format!("{} exists; --force replaces it", args.output.display())));
    }
    let source = Source::open(&(host.resolve)(&args.input).map_err(Error::Model)?)?;
    let conversions = conversions(args, &source)?;
    let extra = source.extra().iter().map(|(tensor, _)| Conversion {
        tensor,
        wanted: tensor.dtype,
        to: tensor.dtype,
        is_kept: false,
    });
    let specs: Vec<TensorSpec> = conversions.iter().map(spec).chain(extra.map(|copy| spec(&copy))).collect();
    let mut writer = GgufWriter::create(&args.output, &metadata(args, &source, &conversions)?, &specs)?;
    for warning in warnings::of(args.mix, &source, &conversions) {
        eprintln!("nanovllm: warning: {}", printable(&warning));
    }

    let offered = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or_else(offered, usize::from);
    let mut progress = Progress::new(&source);
    for (i, conversion) in conversions.iter().enumerate() {
        if (host.interrupted)() {
            return Err(Error::Interrupted);
        }
        let &Conversion { tensor, to, .. } = conversion;
        let SourceTensor { name, dtype: from, .. } = tensor;
        let (written, difference) = source.read(i, |data| {
            if *from == to {
                writer.tensor(name, data)?;
                return Ok((data.len(), None));
            }
            let (new, difference) = convert::convert(data, *from, to, tensor.cols(), threads)
                .map_err(|error| Error::Tensor { name: name.clone(), reason: error.to_string() })?;
            writer.tensor(name, &new)?;
            Ok((new.len(), Some(difference)))
        })?;
        progress.add(conversion, written, difference)?;
    }
    for (tensor, data) in source.extra() {
        writer.tensor(&tensor.name, data)?;
    }
    writer.finish()?;
    progress.finish(args)
}

/// What each tensor of `source` is to become.
fn conversions<'a>(args: &Args, source: &'a Source) -> Result<Vec<Conversion<'a>>, Error> {
    let model = source.model();
    let conversion = |tensor: &'a SourceTensor| {
        let (stored, dims) = (tensor.dtype, tensor.dims.len());
        // A directory has blocks where a model was trained in them.
        let is_kept = stored.block_size() > 1 && source.is_directory() && !args.pure;
        let Choice { wanted, given: to } = match stored {
            // llama.cpp can add and multiply by these only in F32.
            GgmlType::F16 | GgmlType::Bf16 if is_f32(&tensor.name, dims) => {
                Choice { wanted: GgmlType::F32, given: GgmlType::F32 }
            }
            blocks if is_kept => Choice { wanted: blocks, given: blocks },
            _ => args.mix.choice(&model, args.pure, &tensor.name, dims, tensor.cols(), stored),
        };
        if to != stored && !can_quantize(to) {
            let reason = format!("there is no quantiser for {to}");
            return Err(Error::Tensor { name: tensor.name.clone(), reason });
        }
        Ok(Conversion { tensor, wanted, to, is_kept })
    };
    source.tensors.iter().map(conversion).collect()
}

fn spec(&Conversion { tensor, to, .. }: &Conversion<'_>) -> TensorSpec {
    TensorSpec { name: tensor.name.clone(), dims: tensor.dims.clone(), dtype: to }
}

/// The metadata of `source`, changed to those of a single file of the new type.
fn metadata(args: &Args, source: &Source, conversions: &[Conversion<'_>]) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    for (key, value) in &source.metadata {
        let replaced =
            matches!(key.as_str(), "general.file_type" | "general.quantization_version" | "general.alignment");
        if !replaced && !key.starts_with("split.") {
            metadata.insert(key.clone(), value.clone())?;
        }
    }
    // As llama.cpp's converter, which calls what it leaves in MXFP4 by that.
    let is_mxfp4 = conversions.iter().any(|conversion| conversion.is_kept && conversion.to == GgmlType::MXFP4);
    let file_type = if is_mxfp4 && args.mix.base.block_size() == 1 { MXFP4_FILE } else { args.mix.file_type };
    metadata.insert("general.file_type".to_owned(), Value::U32(file_type))?;
    // The version of ggml's block formats has been 2 since 2023.
    metadata.insert("general.quantization_version".to_owned(), Value::U32(2))?;
    Ok(metadata)
}

/// A progress bar on standard error, and a line for each tensor on standard output.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    before: u64,
    after: u64,
    tensors: u64,
}

impl Progress {
    fn new(source: &Source) -> Self {
        let bar = ProgressBar::new(source.tensors.len() as u64);
        // The template is a constant that parses, and without it the bar would only look different.
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} tensors {wide_bar} {eta}") {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), before: 0, after: 0, tensors: source.tensors.len() as u64 }
    }

    fn add(&mut self, conversion: &Conversion<'_>, written: usize, difference: Option<Difference>) -> io::Result<()> {
        let SourceTensor { name, dtype: from, dims } = conversion.tensor;
        let elements: usize = dims.iter().product();
        let stored = from.bytes_for(elements).unwrap_or(0);
        self.before += stored as u64;
        self.after += written as u64;
        let change = match difference {
            None => format!("{from} kept"),
            Some(d) => format!("{from} -> {}, NMSE {:.2e}, largest error {:.2e}", conversion.to, d.nmse(), d.largest),
        };
        let shape: Vec<String> = dims.iter().rev().map(ToString::to_string).collect();
        let name = printable(name);
        let line = format!("{name:<36} {:<14} {change}", shape.join(" x "));
        let mut result = Ok(());
        self.bar.suspend(|| result = writeln!(io::stdout(), "{line}"));
        self.bar.inc(1);
        unless_closed(result)
    }

    fn finish(self, args: &Args) -> Result<(), Error> {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let (before, after) = (bytes(self.before), bytes(self.after));
        let Self { tensors, .. } = self;
        let path = args.output.display();
        let line = format!("{path}: {}, {tensors} tensors, {before} -> {after} in {seconds:.1} s", args.mix.name);
        Ok(unless_closed(writeln!(io::stdout(), "{line}"))?)
    }
}

/// Ignores that nobody reads standard output any more (`| head`): what was asked for is the file.
fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
