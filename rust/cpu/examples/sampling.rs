//! What the sampling options cost over a vocabulary: `sampling [vocab=151936] [rows=1,32] [threads=2] [rounds=50]` prints, as one
//! line of JSON, the median microseconds of a call by number of rows and option.
//!
//! The logits are spread as a language model's: most far below a handful.

use std::error::Error;
use std::time::Instant;

use nanovllm_backend::{Backend, Penalties, SampleRow, Sampled, Truncation};
use nanovllm_cpu::{CpuBackend, CpuOptions};

/// Makes the row of a number.
type Make<'a> = Box<dyn Fn(u64) -> SampleRow<'a> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut vocab, mut rows, mut threads, mut rounds) = (151_936, vec![1, 32], None, 50);
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').ok_or("arguments are key=value")?;
        match key {
            "vocab" => vocab = value.parse()?,
            "rows" => rows = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "threads" => threads = Some(value.parse()?),
            "rounds" => rounds = value.parse()?,
            _ => return Err(format!("no argument {key:?}").into()),
        }
    }
    let backend = CpuBackend::new(CpuOptions { num_threads: threads, ..CpuOptions::default() })?;
    let logits: Vec<f32> = normal(vocab, 7).into_iter().map(|x| 2.5 * x + if x > 3.7 { 6.0 } else { 0.0 }).collect();
    let bias: Vec<(u32, f32)> = (0..300).map(|i| (7 * i, 0.5)).collect();
    let counts: Vec<(u32, u32)> = (0..1500).map(|i| (97 * i, i % 3)).collect();
    let half = vec![0x5555_5555; vocab.div_ceil(32)];
    let plain = |i: u64| SampleRow::drawn(0.8, i, 9);
    let penalties = Some(Penalties { repetition: 1.2, frequency: 0.5, presence: 0.5, tokens: &counts });
    let keep = |top_k, top_p, min_p| Truncation { top_k, top_p, min_p };
    let options: Vec<(&str, Make<'_>)> = vec![
        ("plain", Box::new(plain)),
        ("greedy", Box::new(|_| SampleRow::greedy())),
        ("top_k=50", Box::new(|i| SampleRow { truncation: keep(50, 1.0, 0.0), ..plain(i) })),
        ("top_p=0.95", Box::new(|i| SampleRow { truncation: keep(0, 0.95, 0.0), ..plain(i) })),
        ("min_p=0.05", Box::new(|i| SampleRow { truncation: keep(0, 1.0, 0.05), ..plain(i) })),
        ("three penalties", Box::new(|i| SampleRow { penalties, ..plain(i) })),
        ("logit_bias of 300", Box::new(|i| SampleRow { bias: &bias, ..plain(i) })),
        ("half allowed", Box::new(|i| SampleRow { allowed: Some(&half), ..plain(i) })),
        ("logprobs=5", Box::new(|i| SampleRow { logprobs: Some(5), ..plain(i) })),
        (
            "all together",
            Box::new(|i| SampleRow {
                truncation: keep(50, 0.95, 0.01),
                penalties,
                bias: &bias,
                allowed: Some(&half),
                logprobs: Some(5),
                ..plain(i)
            }),
        ),
    ];
    let mut lines = Vec::new();
    for &rows in &rows {
        let data = logits.repeat(rows);
        let mut times = vec![Vec::with_capacity(rounds); options.len()];
        for round in 0..rounds {
            // Options take turns, so that a busy moment is nobody's in particular.
            for ((_, make), times) in options.iter().zip(&mut times) {
                let mut tensor = backend.upload(&data, rows, vocab)?;
                let choices: Vec<SampleRow<'_>> = (0..rows).map(|i| make((round * rows + i) as u64)).collect();
                let mut sampled = vec![Sampled::default(); rows];
                let start = Instant::now();
                backend.sample(&mut tensor, &choices, &mut sampled);
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        let medians = options.iter().zip(&mut times).map(|((name, _), times)| {
            times.sort_by(f64::total_cmp);
            format!("\"{name}\": {:.1}", times[times.len() / 2])
        });
        lines.push(format!("\"{rows}\": {{{}}}", medians.collect::<Vec<_>>().join(", ")));
    }
    println!("{{{}}}", lines.join(", "));
    Ok(())
}

/// Normal values by the sum of twelve uniform ones, from a fixed seed.
fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}
