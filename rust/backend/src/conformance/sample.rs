//! Choosing tokens: the same on every device, given the logits.

use proptest::prelude::*;

use super::check::for_cases;
use super::promise::Promise;
use super::random::{Random, upload};
use crate::{Backend, NoiseStream, SampleRow};

/// How a row chooses, with its mask token by token beside what the device is given.
#[derive(Debug, Clone, Default)]
struct Choice {
    temperature: f32,
    key: u64,
    position: u64,
    bias: Option<Vec<f32>>,
    allowed: Option<Mask>,
}

#[derive(Debug, Clone)]
struct Mask {
    tokens: Vec<bool>,
    words: Vec<u32>,
}

impl Mask {
    /// Bits of the last word past the vocabulary are all `beyond`, which must make no difference.
    fn new(tokens: Vec<bool>, beyond: bool) -> Self {
        let bit = |word: &[bool], i: usize| u32::from(word.get(i).copied().unwrap_or(beyond)) << i;
        let words = tokens.chunks(32).map(|word| (0..32).map(|i| bit(word, i)).sum()).collect();
        Self { tokens, words }
    }
}

impl Choice {
    fn row(&self) -> SampleRow<'_> {
        let mut row = SampleRow::drawn(self.temperature, self.key, self.position);
        if let Some(bias) = &self.bias {
            row = row.with_bias(bias);
        }
        if let Some(mask) = &self.allowed {
            row = row.with_allowed(&mask.words);
        }
        row
    }

    /// With a bias and a mask of as many tokens, or of fewer; each of them half of the time.
    fn adjusted(self, random: &mut Random, cols: usize) -> Self {
        let len = |random: &mut Random| if random.below(4) == 0 { random.below(cols + 1) } else { cols };
        let bias = (random.below(2) == 0).then(|| {
            let len = len(random);
            let bias = |random: &mut Random| match random.below(100) {
                0 => 100.0,
                1 => f32::NEG_INFINITY,
                2..10 => 0.0,
                _ => 8.0 * random.value(),
            };
            (0..len).map(|_| bias(random)).collect()
        });
        let allowed = (random.below(2) == 0).then(|| {
            // Nearly all, half, few or one of them.
            let (rate, one) = ([1, 16, 30, 33][random.below(4)], random.below(cols));
            let tokens = (0..cols).map(|token| token == one || random.below(32) >= rate).collect();
            let mut mask = Mask::new(tokens, random.below(2) == 0);
            let words = len(random).div_ceil(32);
            mask.words.truncate(words);
            mask.tokens.truncate(32 * words);
            mask
        });
        Self { bias, allowed, ..self }
    }

    /// The contract, token by token.
    fn choice(&self, logits: &[f32]) -> u32 {
        let adjusted = |(token, &logit): (usize, &f32)| {
            let ruled_out = self.allowed.as_ref().is_some_and(|mask| mask.tokens.get(token) != Some(&true));
            let bias = self.bias.as_ref().and_then(|bias| bias.get(token)).unwrap_or(&0.0);
            if ruled_out { f32::NEG_INFINITY } else { logit + bias }
        };
        let logits: Vec<f32> = logits.iter().enumerate().map(adjusted).collect();
        let stream = NoiseStream::new(self.key, self.position);
        let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let draws = self.temperature > 0.0 && (largest / self.temperature).is_finite();
        let mut best: Option<(f64, u32)> = None;
        for (token, &logit) in (0u32..).zip(&logits).filter(|(_, x)| !x.is_nan()) {
            let score = if draws { stream.score(token, logit, self.temperature) } else { f64::from(logit) };
            if best.is_none_or(|(b, _)| score > b) {
                best = Some((score, token));
            }
        }
        best.map_or(0, |(_, token)| token)
    }
}

fn assert_choices<B: Backend>(backend: &B, logits: &[f32], choices: &[Choice]) {
    let cols = logits.len() / choices.len();
    let expected: Vec<u32> = logits.chunks(cols).zip(choices).map(|(logits, choice)| choice.choice(logits)).collect();
    let rows: Vec<SampleRow> = choices.iter().map(Choice::row).collect();
    assert_eq!(sample(backend, logits, &rows), expected, "{choices:?} on {}", backend.describe());
}

fn sample<B: Backend>(backend: &B, logits: &[f32], choice: &[SampleRow<'_>]) -> Vec<u32> {
    let mut out = vec![u32::MAX; choice.len()];
    backend.sample(&mut upload(backend, logits, choice.len(), logits.len() / choice.len()), choice, &mut out);
    out
}

/// At temperature 0 the largest logit is taken, the first of equals wherever they stand.
pub(super) fn greedy_takes_the_first_of_the_largest<B: Backend>(backend: &B, _: &Promise) {
    let greedy = [SampleRow::greedy()];
    for cols in [1, 2, 15, 16, 17, 64, 1000] {
        let mut random = Random::new(cols as u64);
        for _ in 0..8 {
            let mut logits = random.values(cols);
            let (a, b) = (random.below(cols), random.below(cols));
            (logits[a], logits[b]) = (50.0, 50.0);
            assert_eq!(sample(backend, &logits, &greedy), [a.min(b) as u32], "on {}", backend.describe());
        }
        assert_eq!(sample(backend, &vec![0.5; cols], &greedy), [0], "on {}", backend.describe());
    }
}

/// NaN loses to everything, greedy or drawn; a row of nothing else gives token 0.
pub(super) fn what_is_not_a_number_is_never_chosen<B: Backend>(backend: &B, _: &Promise) {
    for temperature in [0.0, 0.7] {
        let row = SampleRow::drawn(temperature, 1, 2);
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

/// A token that alone is allowed is chosen, however unlikely, and whatever the bits past the vocabulary say.
pub(super) fn masks_leave_what_they_allow<B: Backend>(backend: &B, _: &Promise) {
    for cols in [1, 31, 32, 33, 64, 200, 5003] {
        let mut random = Random::new(cols as u64);
        for temperature in [0.0, 0.7, 1e30] {
            let alone: Vec<usize> = [0, cols - 1].into_iter().chain((0..3).map(|_| random.below(cols))).collect();
            let mask = |&only: &usize, beyond| Mask::new((0..cols).map(|token| token == only).collect(), beyond);
            let mut logits = random.values(alone.len() * cols);
            logits.chunks_mut(cols).zip(&alone).for_each(|(row, &only)| row[only] = -90.0);
            for beyond in [false, true] {
                let masks: Vec<Mask> = alone.iter().map(|only| mask(only, beyond)).collect();
                let rows = masks.iter().map(|mask| SampleRow::drawn(temperature, 3, 4).with_allowed(&mask.words));
                let got = sample(backend, &logits, &rows.collect::<Vec<_>>());
                assert!(got.iter().map(|&x| x as usize).eq(alone.iter().copied()), "{got:?} on {}", backend.describe());
            }
        }
    }
}

/// Given logits, key and position, the token is the formula's: also at extreme temperatures, with ties and infinities, biased
/// and masked, in batches that mix choices.
pub(super) fn draws_are_the_formulas<B: Backend>(backend: &B, _: &Promise) {
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
    let choice = (temperature, any::<u64>(), any::<u64>()).prop_map(|(temperature, key, position)| Choice {
        temperature,
        key,
        position,
        ..Choice::default()
    });
    let cases = (
        prop::collection::vec(logit, 1..200),
        prop::collection::vec(choice, 1..5),
        prop::option::weighted(0.1, 0usize..200),
        any::<u64>(),
    );
    for_cases(128, &cases, |(logits, choices, infinite, seed)| {
        let cols = logits.len();
        // Each row starts elsewhere.
        let mut data: Vec<f32> =
            (0..choices.len()).flat_map(|i| logits.iter().cycle().skip(7 * i).take(cols).copied()).collect();
        if let Some(i) = infinite {
            let len = data.len();
            data[i % len] = f32::INFINITY;
        }
        assert_choices(backend, &data, &choices);
        let mut random = Random::new(seed);
        let choices: Vec<Choice> = choices.into_iter().map(|choice| choice.adjusted(&mut random, cols)).collect();
        assert_choices(backend, &data, &choices);
    });
    // A vocabulary, and enough rows for a team.
    let (rows, cols) = (9, 5003);
    let mut random = Random::new(13);
    let data = random.values(rows * cols);
    for temperature in [0.0, 0.3, 1.0, 50.0] {
        let choice = |key| Choice { temperature, key, position: 7, ..Choice::default() };
        assert_choices(backend, &data, &(0..rows as u64).map(choice).collect::<Vec<_>>());
        let adjusted = (0..rows as u64).map(|key| choice(key).adjusted(&mut random, cols));
        assert_choices(backend, &data, &adjusted.collect::<Vec<_>>());
    }
}
