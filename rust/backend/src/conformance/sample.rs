//! Choosing tokens: the same on every device, given the logits.

use proptest::prelude::*;

use super::random::{Random, upload};
use super::{Claims, for_cases};
use crate::{Backend, NoiseStream, SampleRow};

const GREEDY: SampleRow = SampleRow { temperature: 0.0, key: 1, position: 2 };

/// The contract, token by token.
fn choice(logits: &[f32], row: &SampleRow) -> u32 {
    let stream = NoiseStream::new(row.key, row.position);
    let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let draws = row.temperature > 0.0 && (largest / row.temperature).is_finite();
    let mut best: Option<(f64, u32)> = None;
    for (token, &logit) in (0u32..).zip(logits).filter(|(_, x)| !x.is_nan()) {
        let score = if draws { stream.score(token, logit, row.temperature) } else { f64::from(logit) };
        if best.is_none_or(|(b, _)| score > b) {
            best = Some((score, token));
        }
    }
    best.map_or(0, |(_, token)| token)
}

fn sample<B: Backend>(backend: &B, logits: &[f32], plan: &[SampleRow]) -> Vec<u32> {
    let mut out = vec![u32::MAX; plan.len()];
    backend.sample(&upload(backend, logits, plan.len(), logits.len() / plan.len()), plan, &mut out);
    out
}

/// At temperature 0 the largest logit is taken, the first of equals wherever they stand.
pub fn greedy_takes_the_first_of_the_largest<B: Backend>(backend: &B, _: &Claims) {
    for cols in [1, 2, 15, 16, 17, 64, 1000] {
        let mut random = Random::new(cols as u64);
        for _ in 0..8 {
            let mut logits = random.values(cols);
            let (a, b) = (random.below(cols), random.below(cols));
            (logits[a], logits[b]) = (50.0, 50.0);
            assert_eq!(sample(backend, &logits, &[GREEDY]), [a.min(b) as u32], "on {}", backend.describe());
        }
        assert_eq!(sample(backend, &vec![0.5; cols], &[GREEDY]), [0], "on {}", backend.describe());
    }
}

/// NaN loses to everything, greedy or drawn; a row of nothing else gives token 0.
pub fn what_is_not_a_number_is_never_chosen<B: Backend>(backend: &B, _: &Claims) {
    for temperature in [0.0, 0.7] {
        let row = SampleRow { temperature, ..GREEDY };
        for cols in [1, 5, 40] {
            assert_eq!(sample(backend, &vec![f32::NAN; cols], &[row]), [0], "on {}", backend.describe());
            for number in [f32::NEG_INFINITY, -3.0, f32::INFINITY] {
                let mut logits = vec![f32::NAN; cols];
                logits[cols - 1] = number;
                assert_eq!(sample(backend, &logits, &[row]), [cols as u32 - 1], "on {}", backend.describe());
            }
        }
    }
}

/// Given logits, key and position, the token is the formula's: also at extreme temperatures, with ties and infinities, in
/// batches that mix plans.
pub fn draws_are_the_formulas<B: Backend>(backend: &B, _: &Claims) {
    let logit = prop_oneof![
        20 => -20f32..20.0,
        4 => (-3i8..3).prop_map(f32::from),
        1 => Just(f32::NAN),
        1 => Just(f32::NEG_INFINITY),
    ];
    let temperature = prop_oneof![
        Just(0.0f32),
        Just(1.0),
        0.01f32..3.0,
        Just(1e-30),
        Just(1e30),
        Just(100.0),
        Just(f32::NAN),
        Just(-1.0)
    ];
    let row = (temperature, any::<u64>(), any::<u64>()).prop_map(|(temperature, key, position)| SampleRow {
        temperature,
        key,
        position,
    });
    let cases = (
        prop::collection::vec(logit, 1..200),
        prop::collection::vec(row, 1..5),
        prop::option::weighted(0.1, 0usize..200),
    );
    for_cases(128, &cases, |(logits, plan, infinite)| {
        let cols = logits.len();
        // Each row starts elsewhere.
        let mut data: Vec<f32> =
            (0..plan.len()).flat_map(|i| logits.iter().cycle().skip(7 * i).take(cols).copied()).collect();
        if let Some(i) = infinite {
            let len = data.len();
            data[i % len] = f32::INFINITY;
        }
        let expected: Vec<u32> = data.chunks(cols).zip(&plan).map(|(logits, row)| choice(logits, row)).collect();
        assert_eq!(sample(backend, &data, &plan), expected, "on {}", backend.describe());
    });
    // A vocabulary, and enough rows for a team.
    let (rows, cols) = (9, 5003);
    let data = Random::new(13).values(rows * cols);
    for temperature in [0.0, 0.3, 1.0, 50.0] {
        let plan: Vec<_> = (0..rows as u64).map(|key| SampleRow { temperature, key, position: 7 }).collect();
        let expected: Vec<u32> = data.chunks(cols).zip(&plan).map(|(logits, row)| choice(logits, row)).collect();
        assert_eq!(sample(backend, &data, &plan), expected, "at {temperature} on {}", backend.describe());
    }
}
