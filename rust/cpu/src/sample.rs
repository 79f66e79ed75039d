//! Choosing tokens from rows of logits, over the team: each row is one thread's, or of few rows each is everybody's.

mod passes;
mod survivors;

use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, Ordering};

use nanovllm_backend::{LogSum, SampleRow, Sampled, TokenLogprobs};

use self::passes::Passes;
use self::survivors::Survivors;
use crate::claims::Claims;
use crate::kernels::generic::sample::Stream;
use crate::kernels::generic::truncate::of_key;
use crate::kernels::table::RowKernels;
use crate::team::Team;
use crate::tensor::Tensor;

/// From this many logits on it pays to wake the team.
const TEAM_LOGITS: usize = 8 << 10;

/// Of more tokens than these the vectors draw.
const FEW: usize = 512;

/// Room that a thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    keys: Vec<u64>,
    raw: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Chooses one token a row, as [`Backend::sample`](nanovllm_backend::Backend::sample) says. A temperature that is not above 0 is
/// greedy. Logits are adjusted in place by the thread that chooses.
pub(crate) fn sample(
    team: &Team,
    kernels: &RowKernels,
    logits: &mut Tensor,
    choices: &[SampleRow<'_>],
    out: &mut [Sampled],
) {
    let (rows, cols) = (logits.rows(), logits.cols());
    assert_eq!((choices.len(), out.len()), (rows, rows), "rows of the choices and of the tokens");
    let logits = logits.shared();
    // Where most threads would have no row, all share each.
    if 2 * rows <= team.size() || rows < 2 || rows * cols < TEAM_LOGITS {
        let passes = Passes { kernels, team: Some(team) };
        for (i, sampled) in out.iter_mut().enumerate() {
            // SAFETY: nobody else is here.
            *sampled = choose(passes, unsafe { logits.row(i) }, &choices[i]);
        }
        return;
    }
    let passes = Passes { kernels, team: None };
    let claims = Claims::new(rows);
    let sampled = AtomicPtr::new(out.as_mut_ptr());
    team.run(|_| {
        while let Some(range) = claims.take(1) {
            for i in range {
                // SAFETY: logits and `out` have a row and an element for each choice, are borrowed until `run` returns,
                // and each row is claimed once.
                unsafe {
                    let chosen = choose(passes, logits.row(i), &choices[i]);
                    *sampled.load(Ordering::Relaxed).add(i) = chosen;
                }
            }
        }
    });
}

fn choose(passes: Passes<'_>, logits: &mut [f32], row: &SampleRow<'_>) -> Sampled {
    let Some(top) = row.logprobs else {
        return row.given.unwrap_or_else(|| token(passes, logits, row)).into();
    };
    if logits.is_empty() {
        let logprobs = Some(Box::new(TokenLogprobs { logprob: f32::NAN, ..TokenLogprobs::default() }));
        return Sampled { token: row.given.unwrap_or(0), logprobs };
    }
    if let Some(token) = row.given {
        return Sampled { token, logprobs: Some(Box::new(logprobs(passes, logits, token, top))) };
    }
    let mut raw = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.raw));
    // Whatever changes the logits works on them, and what they were is looked into afterwards.
    raw.clear();
    raw.extend_from_slice(logits);
    let token = token(passes, logits, row);
    let logprobs = Some(Box::new(logprobs(passes, &raw, token, top)));
    SCRATCH.with_borrow_mut(|scratch| scratch.raw = raw);
    Sampled { token, logprobs }
}

fn token(passes: Passes<'_>, logits: &mut [f32], row: &SampleRow<'_>) -> u32 {
    row.adjust(logits);
    let stream = Stream::new(row.key, row.position);
    if row.temperature <= 0.0 || row.temperature.is_nan() {
        return passes.arg_max(logits);
    }
    if !row.truncation.is_on() {
        return passes.draw(logits, row.temperature, stream);
    }
    let top = passes.arg_max(logits);
    let Some(&largest) = logits.get(top as usize) else { return 0 };
    if !(largest / row.temperature).is_finite() {
        return top;
    }
    SCRATCH.with_borrow_mut(|Scratch { keys, .. }| {
        let mut survivors = Survivors { passes, logits, largest, temperature: row.temperature, keys };
        let last = survivors.find(&row.truncation);
        if survivors.keys.len() <= FEW {
            return row.winner(survivors.keys.iter().map(|&key| of_key(key)), (top, largest));
        }
        let (last, least) = of_key(last);
        for (token, logit) in (0..).zip(logits.iter_mut()) {
            #[allow(clippy::float_cmp)] // a tie is a tie to the last bit
            if *logit < least || (*logit == least && token > last) {
                *logit = f32::NEG_INFINITY;
            }
        }
        passes.draw(logits, row.temperature, stream)
    })
}

fn logprobs(passes: Passes<'_>, logits: &[f32], token: u32, top: u32) -> TokenLogprobs {
    let largest = logits[passes.arg_max(logits) as usize];
    let largest = if largest.is_nan() { f32::NEG_INFINITY } else { largest };
    let log_sum = LogSum::new(largest, passes.mass(logits, largest, 1.0, f32::NEG_INFINITY));
    let listed = |(token, logit): (u32, f32)| (token, log_sum.logprob(logit));
    let wanted = (top as usize).min(logits.len());
    let top: Vec<(u32, f32)> = SCRATCH.with_borrow_mut(|Scratch { keys, .. }| {
        passes.first_keys(logits, wanted, f32::NEG_INFINITY, keys);
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let not_numbers = (0..).zip(logits).filter(|(_, logit)| logit.is_nan()).map(|(token, &logit)| (token, logit));
        keys.iter().map(|&key| of_key(key)).chain(not_numbers).take(wanted).map(listed).collect()
    });
    let Some(&logit) = logits.get(token as usize) else { return TokenLogprobs { logprob: f32::NAN, rank: 0, top } };
    TokenLogprobs { logprob: log_sum.logprob(logit), rank: passes.ahead(logits, token) as u32 + 1, top }
}

#[cfg(test)]
mod tests;
