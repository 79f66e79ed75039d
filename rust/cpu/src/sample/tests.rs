//! Sampling against the formula, and the noise against chance.

use nanovllm_backend::{Penalties, SampleRow, Sampled, Truncation, rounded, weight};

use super::sample;
use crate::isa::Isa;
use crate::kernels::generic::sample::Stream;
use crate::team::Team;
use crate::testing::{Random, kernels, tensor};

fn sampled(isa: Isa, threads: usize, logits: &[f32], plan: &[SampleRow<'_>]) -> Vec<Sampled> {
    let mut out = vec![Sampled::from(u32::MAX); plan.len()];
    let team = Team::new(threads).expect("threads");
    let mut logits = tensor(logits, plan.len(), logits.len() / plan.len());
    sample(&team, &kernels(isa).rows, &mut logits, plan, &mut out);
    out
}

/// A vocabulary of logits as a language model's: a few far above the others.
fn vocabulary(random: &mut Random, n: usize) -> Vec<f32> {
    random.values(n).iter().map(|x| 4.0 * x + if x.abs() < 1e-3 { 12.0 } else { 0.0 }).collect()
}

/// What the contract says in plain Rust, for rows of a size that the conformance suite does not have.
#[test]
fn a_vocabulary_of_rows_on_a_team() {
    let (rows, cols) = (9, 50_003);
    let mut random = Random::new(3);
    let data: Vec<f32> = (0..rows).flat_map(|_| vocabulary(&mut random, cols)).collect();
    let bias: Vec<(u32, f32)> = (0..300).map(|i| (i * 7, f32::from(i as u8) - 100.0)).collect();
    let allowed: Vec<u32> = (0..cols.div_ceil(32) as u32).map(|i| 0x1248_8001 << (i % 3)).collect();
    let counts: Vec<(u32, u32)> = (0..2000).map(|i| (i * 25, i % 3)).collect();
    let penalties = Penalties { repetition: 1.3, frequency: 0.2, presence: 0.1, tokens: &counts };
    for temperature in [0.0, 0.3, 1.0, 50.0] {
        let row = |key: u64| {
            let drawn = SampleRow::drawn(temperature, key, 7);
            let truncation = match key % 5 {
                0 => Truncation::default(),
                1 => Truncation { top_p: 0.95, ..Truncation::default() },
                2 => Truncation { top_k: 40, top_p: 0.9, min_p: 0.01 },
                3 => Truncation { top_k: 20_000, ..Truncation::default() },
                _ => Truncation { min_p: 0.05, ..Truncation::default() },
            };
            SampleRow {
                bias: if key % 2 == 1 { &bias } else { &[] },
                allowed: (key % 3 == 1).then_some(&allowed[..]),
                penalties: (key % 4 == 1).then_some(penalties),
                logprobs: key.is_multiple_of(2).then_some(20),
                truncation,
                ..drawn
            }
        };
        let plan: Vec<_> = (0..rows as u64).map(row).collect();
        let choose = |(logits, row): (&[f32], &SampleRow<'_>)| row.choose(&mut logits.to_vec());
        let expected: Vec<Sampled> = data.chunks(cols).zip(&plan).map(choose).collect();
        for isa in Isa::available() {
            assert_eq!(sampled(isa, 3, &data, &plan), expected, "{isa} at {temperature}");
            // A row that the members of a team share.
            for (i, row) in data.chunks(cols).enumerate() {
                let alone = sampled(isa, 2 + i, row, &plan[i..=i]);
                assert_eq!(alone, expected[i..=i], "row {i} alone, {isa} at {temperature}");
            }
        }
    }
}

/// Where the temperature is so high that logits next to the largest are no further from it than nothing.
#[test]
fn the_highest_temperatures_keep_what_the_contract_keeps() {
    let logits: Vec<f32> = (0..100u8).map(|i| 1e-3 - f32::from(i) * 2e-8).collect();
    for isa in Isa::available() {
        for position in 0..50 {
            let truncation = Truncation { min_p: 1.0, ..Truncation::default() };
            let row = SampleRow { truncation, ..SampleRow::drawn(1e38, 3, position) };
            assert_eq!(sampled(isa, 1, &logits, &[row])[0], row.choose(&mut logits.clone()), "{isa}");
        }
    }
}

#[test]
fn what_is_not_a_number_is_never_chosen() {
    let nan = f32::NAN;
    for isa in Isa::available() {
        for temperature in [0.0, 1.0] {
            for (logits, expected) in [
                (vec![nan; 40], 0),
                ([vec![nan; 20], vec![f32::NEG_INFINITY; 20]].concat(), 20),
                ([vec![nan; 37], vec![-5.0]].concat(), 37),
                // In pieces of which one has no number.
                ([vec![nan; 20_000], vec![f32::NEG_INFINITY; 20_000]].concat(), 20_000),
                ([vec![f32::NEG_INFINITY; 20_000], vec![nan; 20_000]].concat(), 0),
                ([vec![nan; 39_999], vec![-5.0]].concat(), 39_999),
                ([vec![0.0; 20_000], vec![nan; 19_999], vec![f32::INFINITY]].concat(), 39_999),
                (vec![0.0, f32::INFINITY, nan, f32::INFINITY], 1),
            ] {
                let truncation = Truncation { top_k: 2, top_p: 0.5, min_p: 0.1 };
                for truncation in [Truncation::default(), truncation] {
                    let plan = [SampleRow { truncation, ..SampleRow::drawn(temperature, 1, 2) }];
                    for threads in [1, 2] {
                        let token = sampled(isa, threads, &logits, &plan)[0].token;
                        assert_eq!(token, expected, "{isa} at {temperature} with {threads} threads");
                    }
                }
            }
        }
    }
}

/// The weights that vectors add up are those of the contract, to the last bit.
#[test]
fn weights_are_the_contracts() {
    let mut logits: Vec<f32> = (0..40_000).map(|i| -(i as f32) * 7e-4).collect();
    logits.extend([f32::NAN, f32::NEG_INFINITY, -0.0, 0.0]);
    for (temperature, least) in [(1.0, f32::NEG_INFINITY), (0.37, f32::NEG_INFINITY), (2.5, -3.0)] {
        for n in [0, 1, 15, 129, 5000, logits.len()] {
            let logits = &logits[..n];
            let x = logits.iter().map(|&x| x / temperature).filter(|&x| x >= least);
            let expected = x.map(|x| rounded(weight(x))).fold(0.0, |sum: f64, x| sum + x);
            for isa in Isa::available() {
                // SAFETY: the pointer and the length are a slice's.
                let got = unsafe { (kernels(isa).rows.mass)(logits.as_ptr(), n, 0.0, temperature, least) };
                assert_eq!(got.to_bits(), expected.to_bits(), "{isa}: {n} logits over {temperature}");
            }
        }
    }
}

/// Pearson's statistic of `counts` against equal chances.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
    counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum()
}

/// For 255 degrees of freedom the statistic has mean 255 and deviation 22.6; five deviations either way.
fn plausible(statistic: f64) -> bool {
    (142.0..368.0).contains(&statistic)
}

/// Each byte of the hash, along tokens, along positions and along keys, and neighbours on each line against each other.
#[test]
fn noise_is_uniform_and_independent() {
    const N: u64 = 1 << 16;
    type Line = fn(u64) -> u32;
    let lines: [(&str, Line); 4] = [
        ("tokens", |i| Stream::new(1, 2).bits(i as u32)),
        ("positions", |i| Stream::new(1, i).bits(5)),
        ("keys", |i| Stream::new(i, 3).bits(5)),
        ("tokens of position 0 and key 0", |i| Stream::new(0, 0).bits(i as u32)),
    ];
    for (name, line) in lines {
        for shift in [0, 8, 16, 24] {
            let mut counts = [0; 256];
            let mut pairs = [0; 256];
            for i in 0..N {
                let bits = line(i) >> shift;
                counts[(bits & 255) as usize] += 1;
                pairs[(bits & 15 | (line(i + 1) >> shift & 15) << 4) as usize] += 1;
            }
            assert!(plausible(chi_square(&counts)), "{name}, bits from {shift}: {}", chi_square(&counts));
            assert!(plausible(chi_square(&pairs)), "{name}, pairs of bits from {shift}: {}", chi_square(&pairs));
        }
    }
    // The same token in two streams, and a token's neighbour in the next position (a stream must not be another one shifted).
    for (token, position) in [(0u32, 1u64), (1, 1), (1, 0)] {
        let mut pairs = [0; 256];
        for i in 0..N {
            let a = Stream::new(9, i).bits(100) >> 28;
            let b = Stream::new(9, i + position).bits(100 + token) >> 28;
            pairs[(a | b << 4) as usize] += 1;
        }
        assert!(plausible(chi_square(&pairs)), "tokens {token}, positions {position} apart: {}", chi_square(&pairs));
    }
}

/// Draws follow the softmax: Pearson's statistic over eight tokens, 7 degrees of freedom (29.9 is exceeded once in 10,000).
#[test]
fn draws_follow_the_softmax() {
    const DRAWS: usize = 20_000;
    let logits = [0.0f32, 1.0, -1.0, 0.5, 2.0, -2.0, 0.0, 1.5];
    for temperature in [0.5f32, 1.0, 2.0] {
        let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let plan: Vec<_> = (0..DRAWS as u64).map(|position| SampleRow::drawn(temperature, 4, position)).collect();
        let out = sampled(Isa::detect(), 2, &logits.repeat(DRAWS), &plan);
        let mut counts = [0f64; 8];
        for sampled in &out {
            counts[sampled.token as usize] += 1.0;
        }
        let expected = weights.iter().map(|w| w / total * DRAWS as f64);
        let statistic: f64 = counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum();
        assert!(statistic < 29.9, "{statistic} at {temperature}");
    }
}
