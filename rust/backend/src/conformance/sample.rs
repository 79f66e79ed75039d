//! Choosing tokens: the same on every device, given the logits.

use proptest::prelude::*;

use super::check::for_cases;
use super::promise::Promise;
use super::random::{Random, upload};
use crate::{Backend, NoiseStream, Penalties, SampleRow, Sampled, TokenLogprobs, Truncation, rounded, weight};

/// How a row chooses, with its mask token by token beside what the device is given.
#[derive(Debug, Clone, Default)]
struct Choice {
    temperature: f32,
    key: u64,
    position: u64,
    bias: Vec<(u32, f32)>,
    /// Repetition, frequency and presence.
    penalties: Option<[f32; 3]>,
    /// The tokens that have penalties.
    counts: Vec<(u32, u32)>,
    allowed: Option<Mask>,
    truncation: Truncation,
    given: Option<u32>,
    logprobs: Option<u32>,
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
        SampleRow {
            bias: &self.bias,
            penalties: self.penalties.map(|[repetition, frequency, presence]| Penalties {
                repetition,
                frequency,
                presence,
                tokens: &self.counts,
            }),
            allowed: self.allowed.as_ref().map(|mask| &mask.words[..]),
            truncation: self.truncation,
            given: self.given,
            logprobs: self.logprobs,
            ..SampleRow::drawn(self.temperature, self.key, self.position)
        }
    }

    /// With every option half of the time; tokens may be past the end of the row.
    fn adjusted(self, random: &mut Random, cols: usize) -> Self {
        let half = |random: &mut Random| random.below(2) == 0;
        let token = |random: &mut Random| random.below(cols + 2) as u32;
        let bias = |random: &mut Random| match random.below(20) {
            0 => 100.0,
            1 | 2 => f32::NEG_INFINITY,
            _ => 8.0 * random.value(),
        };
        let few = [0, 1, 5, cols / 2][random.below(4)];
        let biases = if half(random) { few } else { 0 };
        let bias = (0..biases).map(|_| (token(random), bias(random))).collect();
        let penalties = half(random).then(|| {
            let repetition = [1.0, 1.3, 0.7, 5.0][random.below(4)];
            [repetition, 2.0 * random.value(), [0.0, 1.5, -0.5][random.below(3)]]
        });
        let first = random.below(cols + 2) as u32;
        let counts =
            (first..).step_by(1 + random.below(3)).take(few).map(|token| (token, random.below(4) as u32)).collect();
        let allowed = half(random).then(|| {
            // Nearly all, half, few or one of them.
            let (rate, one) = ([1, 16, 30, 33][random.below(4)], random.below(cols));
            let tokens = (0..cols).map(|token| token == one || random.below(32) >= rate).collect();
            let mut mask = Mask::new(tokens, half(random));
            let len = if random.below(4) == 0 { random.below(cols + 1) } else { cols };
            let words = len.div_ceil(32);
            mask.words.truncate(words);
            mask.tokens.truncate(32 * words);
            mask
        });
        let top_k = [0, 1, 2, 7, 50, cols as u32, u32::MAX][random.below(7)];
        let top_p = [1.0, 1.0, 0.999, 0.9, 0.5, 0.1, f32::MIN_POSITIVE][random.below(7)];
        let min_p = [0.0, 0.0, 1e-6, 0.01, 0.3, 1.0][random.below(6)];
        let truncation = if half(random) { Truncation { top_k, top_p, min_p } } else { Truncation::default() };
        let logprobs = half(random).then(|| [0, 1, 5, cols as u32, u32::MAX][random.below(5)]);
        let given = (random.below(8) == 0).then(|| random.below(cols) as u32);
        Self { bias, penalties, counts, allowed, truncation, given, logprobs, ..self }
    }

    /// The logits after bias, penalties and mask, token by token.
    fn changed(&self, logits: &[f32]) -> Vec<f32> {
        let changed = |(token, &logit): (usize, &f32)| {
            if self.allowed.as_ref().is_some_and(|mask| mask.tokens.get(token) != Some(&true)) {
                return f32::NEG_INFINITY;
            }
            let own = self.bias.iter().filter(|(biased, _)| *biased as usize == token);
            let mut logit = own.fold(logit, |logit, (_, bias)| logit + bias);
            let counted = self.counts.iter().find(|(counted, _)| *counted as usize == token);
            if let (Some([repetition, frequency, presence]), Some(&(_, count))) = (self.penalties, counted) {
                logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
                if count > 0 {
                    logit = logit - frequency * count as f32 - presence;
                }
            }
            logit
        };
        logits.iter().enumerate().map(changed).collect()
    }

    /// Which tokens truncation leaves, by what is before each in the order of the logits.
    fn drawable(&self, logits: &[f32], largest: f32) -> Vec<u32> {
        let Truncation { top_k, top_p, min_p } = self.truncation;
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(|&token| !logits[token as usize].is_nan()).collect();
        order.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).expect("numbers"));
        let below = |token: u32| (logits[token as usize] - largest) / self.temperature;
        if min_p > 0.0 {
            let least = f64::from(min_p).ln() as f32;
            order.retain(|&token| below(token) >= least);
        }
        if top_k > 0 {
            order = order.into_iter().take(top_k as usize).collect();
        }
        if top_p < 1.0 {
            let weights: Vec<f64> = order.iter().map(|&token| rounded(weight(below(token)))).collect();
            let enough = f64::from(top_p) * weights.iter().rev().sum::<f64>();
            let mut before = 0.0;
            let is_needed = |weight: &f64| {
                let is_needed = before < enough;
                before += weight;
                is_needed
            };
            let needed = weights.iter().map(is_needed).collect::<Vec<bool>>();
            order = order.into_iter().zip(needed).filter(|(_, is_needed)| *is_needed).map(|(token, _)| token).collect();
        }
        order
    }

    /// The contract, token by token.
    fn choice(&self, raw: &[f32]) -> Sampled {
        let token = self.given.unwrap_or_else(|| self.token(&self.changed(raw)));
        Sampled { token, logprobs: self.logprobs.map(|top| Box::new(logprobs(raw, token, top as usize))) }
    }

    fn token(&self, logits: &[f32]) -> u32 {
        let stream = NoiseStream::new(self.key, self.position);
        let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let draws = self.temperature > 0.0 && (largest / self.temperature).is_finite();
        let mut tokens = if draws { self.drawable(logits, largest) } else { (0..logits.len() as u32).collect() };
        tokens.sort_unstable();
        let mut best: Option<(f64, u32)> = None;
        for token in tokens {
            let logit = logits[token as usize];
            let score = if draws { stream.score(token, logit, self.temperature) } else { f64::from(logit) };
            if !logit.is_nan() && best.is_none_or(|(b, _)| score > b) {
                best = Some((score, token));
            }
        }
        best.map_or(0, |(_, token)| token)
    }
}

fn logprobs(logits: &[f32], token: u32, top: usize) -> TokenLogprobs {
    let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().rev().map(|logit| rounded(weight(logit - largest))).sum();
    let logprob = |token: u32| (f64::from(logits[token as usize]) - f64::from(largest) - sum.ln()) as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let place = |&token: &u32| {
        let logit = logits[token as usize];
        // NaN after all others.
        (logit.is_nan(), std::cmp::Reverse(if logit.is_nan() { 0 } else { monotone(logit) }), token)
    };
    order.sort_by_key(place);
    let rank = order.iter().position(|&other| other == token).map_or(0, |at| at as u32 + 1);
    let top = order.into_iter().take(top).map(|token| (token, logprob(token))).collect();
    TokenLogprobs { logprob: logprob(token), rank, top }
}

/// An integer that grows with the number.
fn monotone(x: f32) -> i32 {
    let bits = (x + 0.0).to_bits() as i32;
    if bits < 0 { i32::MIN - bits } else { bits }
}

/// A log-probability, a rank, and tokens with theirs.
type Bits = (u32, u32, Vec<(u32, u32)>);

/// What can be compared, NaN with NaN too.
fn comparable(sampled: &Sampled) -> (u32, Option<Bits>) {
    let bits = |x: f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
    let logprobs = sampled.logprobs.as_ref().map(|logprobs| {
        let top = logprobs.top.iter().map(|&(token, logprob)| (token, bits(logprob))).collect();
        (bits(logprobs.logprob), logprobs.rank, top)
    });
    (sampled.token, logprobs)
}

fn assert_choices<B: Backend>(backend: &B, logits: &[f32], choices: &[Choice]) {
    let cols = logits.len() / choices.len();
    let rows: Vec<SampleRow> = choices.iter().map(Choice::row).collect();
    let got = sampled(backend, logits, &rows);
    for ((got, logits), choice) in got.iter().zip(logits.chunks(cols)).zip(choices) {
        let (got, expected) = (comparable(got), comparable(&choice.choice(logits)));
        assert_eq!(got, expected, "{choice:?} on {}", backend.describe());
    }
}

fn sampled<B: Backend>(backend: &B, logits: &[f32], choice: &[SampleRow<'_>]) -> Vec<Sampled> {
    let mut out = vec![Sampled::from(u32::MAX); choice.len()];
    backend.sample(&mut upload(backend, logits, choice.len(), logits.len() / choice.len()), choice, &mut out);
    out
}

fn sample<B: Backend>(backend: &B, logits: &[f32], choice: &[SampleRow<'_>]) -> Vec<u32> {
    sampled(backend, logits, choice).into_iter().map(|sampled| sampled.token).collect()
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
                let drawn = SampleRow::drawn(temperature, 3, 4);
                let rows = masks.iter().map(|mask| SampleRow { allowed: Some(&mask.words), ..drawn });
                let got = sample(backend, &logits, &rows.collect::<Vec<_>>());
                assert!(got.iter().map(|&x| x as usize).eq(alone.iter().copied()), "{got:?} on {}", backend.describe());
            }
        }
    }
}

/// Given logits, key and position, the token is the formula's, and how likely it is: also at extreme temperatures, with ties and
/// infinities, with every option, in batches that mix choices.
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

/// A nucleus of any size in a vocabulary, flat or steep, is found whatever way a device looks for it.
pub(super) fn truncation_keeps_the_first<B: Backend>(backend: &B, _: &Promise) {
    let mut random = Random::new(17);
    for cols in [1, 3, 64, 1000, 9001] {
        for steepness in [0.0, 0.1, 3.0, 20.0] {
            // Half of the logits have others that are equal.
            let logits: Vec<f32> = (0..cols)
                .map(|i| if i % 2 == 0 { random.value() } else { (random.value() * 8.0).round() / 8.0 })
                .map(|x| steepness * x)
                .collect();
            let options =
                [(0, 0.9, 0.0), (0, 0.3, 0.01), (40, 1.0, 0.0), (700, 0.99, 0.0), (0, 1.0, 0.2), (5000, 0.5, 1e-4)];
            let choices = options.map(|(top_k, top_p, min_p)| Choice {
                temperature: [0.5, 1.0, 2.0][random.below(3)],
                key: random.next(),
                truncation: Truncation { top_k, top_p, min_p },
                logprobs: Some(3),
                ..Choice::default()
            });
            assert_choices(backend, &logits.repeat(choices.len()), &choices);
        }
    }
}
