//! Sampling against the formula, and the noise against chance.

use nanovllm_backend::SampleRow;
use proptest::prelude::*;

use super::sample;
use crate::isa::Isa;
use crate::kernels::generic::sample::Stream;
use crate::team::Team;
use crate::testing::{Random, kernels, tensor};

/// The contract, token by token.
fn naive(logits: &[f32], row: &SampleRow<'_>) -> u32 {
    let may = |i: usize| row.allowed.is_none_or(|allowed| allowed[i / 32] & 1 << (i % 32) != 0);
    let adjusted = |(i, &x)| if may(i) { x + row.bias.map_or(0.0, |bias| bias[i]) } else { f32::NEG_INFINITY };
    let logits: Vec<f32> = logits.iter().enumerate().map(adjusted).collect();
    let stream = Stream::new(row.key, row.position);
    let top = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let draws = row.temperature > 0.0 && (top / row.temperature).is_finite();
    let mut best: Option<(f64, u32)> = None;
    for (i, &logit) in logits.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
        let score = if draws { stream.score(i as u32, logit, row.temperature) } else { f64::from(logit) };
        if best.is_none_or(|(b, _)| score > b) {
            best = Some((score, i as u32));
        }
    }
    best.map_or(0, |(_, i)| i)
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => -20f32..20.0,
        4 => (-3i8..3).prop_map(f32::from),
        1 => Just(f32::NAN),
        1 => Just(f32::NEG_INFINITY),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_choice_is_the_formulas(
        rows in prop::collection::vec(prop::collection::vec(logit(), 1..200), 1..4),
        temperature in prop_oneof![Just(0.0f32), Just(1.0), 0.01f32..3.0, Just(1e-30), Just(1e30), Just(100.0)],
        infinite in prop::option::weighted(0.05, 0usize..200), key: u64, position: u64,
        biased in prop::option::of(any::<u64>()), masked in prop::option::of(any::<u64>()),
    ) {
        let cols = rows[0].len();
        let mut data: Vec<f32> = rows.iter().flat_map(|row| row.iter().copied().cycle().take(cols)).collect();
        if let Some(i) = infinite {
            let i = i % data.len();
            data[i] = f32::INFINITY;
        }
        let bias: Option<Vec<f32>> = biased.map(|seed| Random::new(seed).values(cols).iter().map(|x| 9.0 * x).collect());
        // The odd rows alone are adjusted.
        let allowed: Option<Vec<u32>> = masked.map(|seed| {
            let mut random = Random::new(seed);
            (0..cols.div_ceil(32)).map(|_| (random.next() & random.next()) as u32).collect()
        });
        let row = |i: u64| {
            let row = SampleRow::drawn(temperature, key ^ i, position.wrapping_add(i));
            if i % 2 == 1 { SampleRow { bias: bias.as_deref(), allowed: allowed.as_deref(), ..row } } else { row }
        };
        let plan: Vec<_> = (0..rows.len() as u64).map(row).collect();
        let expected: Vec<u32> = data.chunks(cols).zip(&plan).map(|(row, plan)| naive(row, plan)).collect();
        for isa in Isa::available() {
            let mut out = vec![u32::MAX; rows.len()];
            let team = Team::new(1).expect("one");
            let mut logits = tensor(&data, rows.len(), cols);
            sample(&team, &kernels(isa).rows, &mut logits, &plan, &mut out);
            prop_assert_eq!(&out, &expected, "{}", isa);
        }
    }
}

#[test]
fn a_vocabulary_of_rows_on_a_team() {
    let (rows, cols) = (9, 5003);
    let data = Random::new(3).values(rows * cols);
    let bias: Vec<f32> = Random::new(4).values(cols);
    let allowed: Vec<u32> = (0..cols.div_ceil(32) as u32).map(|i| 0x1248_8001 << (i % 3)).collect();
    for temperature in [0.0, 0.3, 1.0, 50.0] {
        let row = |key: u64| {
            let row = SampleRow::drawn(temperature, key, 7);
            let biased = if key % 2 == 1 { row.with_bias(&bias) } else { row };
            if key % 3 == 1 { biased.with_allowed(&allowed) } else { biased }
        };
        let plan: Vec<_> = (0..rows as u64).map(row).collect();
        let expected: Vec<u32> = data.chunks(cols).zip(&plan).map(|(row, plan)| naive(row, plan)).collect();
        for isa in Isa::available() {
            let mut out = vec![0; rows];
            let team = Team::new(3).expect("threads");
            sample(&team, &kernels(isa).rows, &mut tensor(&data, rows, cols), &plan, &mut out);
            assert_eq!(out, expected, "{isa} at {temperature}");
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
                (vec![0.0, f32::INFINITY, nan, f32::INFINITY], 1),
            ] {
                let mut out = [99];
                let plan = [SampleRow::drawn(temperature, 1, 2)];
                let team = Team::new(1).expect("one");
                sample(&team, &kernels(isa).rows, &mut tensor(&logits, 1, logits.len()), &plan, &mut out);
                assert_eq!(out[0], expected, "{isa} at {temperature}");
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
        let mut out = vec![0; DRAWS];
        let team = Team::new(2).expect("threads");
        sample(&team, &kernels(Isa::detect()).rows, &mut tensor(&logits.repeat(DRAWS), DRAWS, 8), &plan, &mut out);
        let mut counts = [0f64; 8];
        for &token in &out {
            counts[token as usize] += 1.0;
        }
        let expected = weights.iter().map(|w| w / total * DRAWS as f64);
        let statistic: f64 = counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum();
        assert!(statistic < 29.9, "{statistic} at {temperature}");
    }
}
