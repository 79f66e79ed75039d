//! Speed of the matmul by weight type: `matmul [isa=avx2] [threads=2] [bits=8] [rounds=20] [types=Q4_1,Q6_K] [m=1,32,512]`.
//! Without `types`, every one that the device keeps as it is.
//!
//! The shapes are those of a Qwen3-0.6B feed-forward layer. Types take turns, and the best of the rounds counts, so that a busy
//! neighbour costs time rather than truth. At one row, weights are cycled through so that they come from memory.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use nanovllm_backend::{Backend, DType, WeightPart};
use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions, Tensor, Weight};

/// Outputs and inputs.
const SHAPES: [(usize, usize); 2] = [(3072, 1024), (1024, 3072)];
/// Bytes of weights to cycle through at one row: more than the caches of most machines.
const STREAM: usize = 48 << 20;

/// What to time.
struct Options {
    cpu: CpuOptions,
    rounds: usize,
    types: Vec<DType>,
    rows: Vec<usize>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { cpu: CpuOptions::default(), rounds: 20, types: Vec::new(), rows: vec![1, 32, 512] };
        for argument in std::env::args().skip(1) {
            let (key, value) = argument.split_once('=').ok_or(format!("{argument:?} is not key=value"))?;
            let number = |value: &str| value.parse::<usize>().map_err(|e| format!("{key}={value}: {e}"));
            match key {
                "isa" => options.cpu.isa = Some(value.parse().map_err(|e| format!("{e}"))?),
                "threads" => options.cpu.num_threads = Some(number(value)?),
                "bits" if value == "8" => options.cpu.activation_bits = ActivationBits::Eight,
                "bits" if value == "16" => options.cpu.activation_bits = ActivationBits::Sixteen,
                "rounds" => options.rounds = number(value)?.max(1),
                "types" => options.types = types(value)?,
                "m" => options.rows = value.split(',').map(number).collect::<Result<_, _>>()?,
                _ => return Err(format!("unknown option {argument:?}")),
            }
        }
        Ok(options)
    }
}

fn types(names: &str) -> Result<Vec<DType>, String> {
    let find = |name| DType::ALL.iter().copied().find(|t| t.name() == name).ok_or(format!("unknown type {name:?}"));
    names.split(',').map(find).collect()
}

/// One type in one shape.
struct Case {
    dtype: DType,
    weights: Vec<Weight>,
    next: usize,
    /// Seconds of the fastest call.
    best: f64,
}

impl Case {
    fn new(device: &CpuBackend, dtype: DType, (rows, cols): (usize, usize), m: usize) -> Result<Self, String> {
        let len = dtype.bytes_for(cols).ok_or(format!("{dtype} has no rows of {cols}"))? * rows;
        // As f16 or bf16 these are about one, as codes anything in the middle.
        let data: Vec<u8> = (0..len).map(|i| 0x30 + (i * 7 % 13) as u8).collect();
        let pack = || device.pack(&WeightPart { dtype, rows, cols, data: &data }).map_err(|e| e.to_string());
        let first = pack()?;
        let copies = if m == 1 { STREAM.div_ceil(first.bytes()) } else { 1 };
        let mut weights = vec![first];
        for _ in 1..copies {
            weights.push(pack()?);
        }
        Ok(Self { dtype, weights, next: 0, best: f64::INFINITY })
    }

    fn time(&mut self, device: &CpuBackend, x: &Tensor, out: &mut Tensor) {
        let calls = if self.weights.len() > 1 { 8 } else { 1 };
        for _ in 0..calls {
            let weight = &self.weights[self.next];
            self.next = (self.next + 1) % self.weights.len();
            let start = Instant::now();
            device.linear(x, weight, None, out);
            self.best = self.best.min(start.elapsed().as_secs_f64());
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::parse()?;
    let device = CpuBackend::new(options.cpu).map_err(|e| e.to_string())?;
    if options.types.is_empty() {
        let kept = |dtype: &DType| !dtype.is_integer() && device.stored_as(*dtype, 256) == *dtype;
        options.types = DType::ALL.iter().copied().filter(kept).collect();
    }
    println!("{}, {:?} activation bits", device.describe(), options.cpu.activation_bits);
    println!("{:8} {:>4} {:>10} {:>8} {:>8} {:>9}", "type", "m", "shape", "GB/s", "GOPS", "of first");
    let mut json = String::new();
    for &m in &options.rows {
        for (rows, cols) in SHAPES {
            let ones: Vec<f32> = (0..m * cols).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
            device.tensor(m, cols).map_err(|e| e.to_string())?; // makes room for the codes
            let x = device.upload(&ones, m, cols).map_err(|e| e.to_string())?;
            let mut out = device.tensor(m, rows).map_err(|e| e.to_string())?;
            let case = |&dtype| Case::new(&device, dtype, (rows, cols), m);
            let mut cases = options.types.iter().map(case).collect::<Result<Vec<_>, _>>()?;
            for _ in 0..options.rounds {
                for case in &mut cases {
                    case.time(&device, &x, &mut out);
                }
            }
            let first = cases.first().map_or(f64::NAN, |case| case.best);
            for Case { dtype, weights, best, .. } in &cases {
                let bandwidth = weights[0].bytes() as f64 / best / 1e9;
                let rate = 2.0 * (m * rows * cols) as f64 / best / 1e9;
                let relative = first / best;
                println!("{dtype:8} {m:4} {rows:5}x{cols:<4} {bandwidth:8.1} {rate:8.0} {relative:9.2}");
                let comma = if json.is_empty() { "" } else { ", " };
                write!(json, "{comma}[\"{dtype}\", {m}, {rows}, {cols}, {best:.3e}]").map_err(|e| e.to_string())?;
            }
        }
    }
    println!("{{\"device\": \"{}\", \"seconds\": [{json}]}}", device.describe());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
