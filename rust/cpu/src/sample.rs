//! Choosing tokens from rows of logits, over the team: each row is one thread's.

use std::sync::atomic::{AtomicPtr, Ordering};

use nanovllm_backend::SampleRow;

use crate::claims::Claims;
use crate::kernels::generic::sample::Stream;
use crate::kernels::table::RowKernels;
use crate::team::Team;
use crate::tensor::Tensor;

/// From this many logits on it pays to wake the team.
const TEAM_LOGITS: usize = 8 << 10;

/// Chooses one token a row, as [`Backend::sample`](nanovllm_backend::Backend::sample) says. A temperature that is not above 0 is
/// greedy. Logits are adjusted in place by the thread that chooses.
pub(crate) fn sample(
    team: &Team,
    kernels: &RowKernels,
    logits: &mut Tensor,
    choices: &[SampleRow<'_>],
    out: &mut [u32],
) {
    let (rows, cols) = (logits.rows(), logits.cols());
    assert_eq!((choices.len(), out.len()), (rows, rows), "rows of the choices and of the tokens");
    let logits = logits.shared();
    if rows < 2 || rows * cols < TEAM_LOGITS {
        for (i, token) in out.iter_mut().enumerate() {
            // SAFETY: nobody else is here.
            *token = choose(kernels, unsafe { logits.row(i) }, &choices[i]);
        }
        return;
    }
    let claims = Claims::new(rows);
    let tokens = AtomicPtr::new(out.as_mut_ptr());
    team.run(|_| {
        while let Some(range) = claims.take(1) {
            for i in range {
                // SAFETY: logits and `out` have a row and an element for each choice, are borrowed until `run` returns,
                // and each row is claimed once.
                unsafe {
                    let token = choose(kernels, logits.row(i), &choices[i]);
                    *tokens.load(Ordering::Relaxed).add(i) = token;
                }
            }
        }
    });
}

fn choose(kernels: &RowKernels, logits: &mut [f32], row: &SampleRow<'_>) -> u32 {
    row.adjust(logits);
    let (p, n) = (logits.as_ptr(), logits.len());
    // SAFETY: `logits` is a slice of `n` values.
    unsafe {
        if row.temperature > 0.0 {
            (kernels.draw)(p, n, row.temperature, Stream::new(row.key, row.position))
        } else {
            (kernels.arg_max)(p, n)
        }
    }
}

#[cfg(test)]
mod tests;
