//! The operations on one row of activations at a time, over the team.

use nanovllm_backend::{Activation, Scale};

use crate::claims::Claims;
use crate::kernels::table::RowKernels;
use crate::team::Team;
use crate::tensor::Tensor;

/// From this many values on, about two microseconds of work, it pays to wake the team.
const TEAM_VALUES: usize = 16 << 10;
/// How many values a thread takes at a time, at least.
const CLAIM_VALUES: usize = 4 << 10;

/// Calls `f` for each of `rows` rows of `width` values, on the team when they are many.
fn for_each_row(team: &Team, rows: usize, width: usize, f: impl Fn(usize) + Sync) {
    if rows < 2 || rows * width < TEAM_VALUES {
        return (0..rows).for_each(f);
    }
    let claims = Claims::new(rows);
    let chunk = (CLAIM_VALUES / width.max(1)).clamp(1, rows.div_ceil(team.size()));
    team.run(|_| {
        while let Some(range) = claims.take(chunk) {
            range.for_each(&f);
        }
    });
}

/// `out = x / sqrt(mean(x^2) + eps) * weight` by as many values as `weight` has.
pub(crate) fn rms_norm(team: &Team, kernels: &RowKernels, x: &Tensor, weight: &Tensor, eps: f32, out: &mut Tensor) {
    let (cols, weight) = (x.cols(), weight.as_slice());
    let width = weight.len();
    assert!(out.cols() == cols && cols.is_multiple_of(width), "widths of rms_norm: {cols}, {} and {width}", out.cols());
    out.set_rows(x.rows());
    let to = out.shared();
    for_each_row(team, x.rows(), cols, |i| {
        // SAFETY: row `i` of the output is visited once.
        let to = unsafe { to.row(i) };
        for (x, to) in x.row(i).chunks_exact(width).zip(to.chunks_exact_mut(width)) {
            // SAFETY: each slice has `width` values.
            unsafe { (kernels.rms_norm)(x.as_ptr(), weight.as_ptr(), eps, to.as_mut_ptr(), width) };
        }
    });
}

/// `residual += x; out = rms_norm(residual)` by rows.
pub(crate) fn add_rms_norm(
    team: &Team,
    kernels: &RowKernels,
    x: &Tensor,
    residual: &mut Tensor,
    weight: &Tensor,
    eps: f32,
    out: &mut Tensor,
) {
    let cols = x.cols();
    assert_eq!((weight.as_slice().len(), out.cols()), (cols, cols), "widths of add_rms_norm");
    assert_eq!((residual.rows(), residual.cols()), (x.rows(), cols), "shape of the residual");
    out.set_rows(x.rows());
    let (to, residual) = (out.shared(), residual.shared());
    for_each_row(team, x.rows(), cols, |i| {
        let weight = weight.as_slice().as_ptr();
        // SAFETY: row `i` of each tensor, `cols` values, is visited once.
        unsafe {
            let (residual, to) = (residual.row(i).as_mut_ptr(), to.row(i).as_mut_ptr());
            (kernels.add_rms_norm)(x.row(i).as_ptr(), residual, weight, eps, to, cols);
        }
    });
}

/// `out = activation(x[:, :n]) * x[:, n:]` with `x` of width `2n`.
pub(crate) fn activate_and_mul(
    team: &Team,
    kernels: &RowKernels,
    activation: Activation,
    x: &Tensor,
    out: &mut Tensor,
) {
    let n = out.cols();
    assert_eq!(x.cols(), 2 * n, "columns of activate_and_mul");
    let kernel = kernels.activate_and_mul(activation);
    out.set_rows(x.rows());
    let to = out.shared();
    for_each_row(team, x.rows(), x.cols(), |i| {
        let (gate, up) = x.row(i).split_at(n);
        // SAFETY: row `i` of each tensor, `n` values, is visited once.
        unsafe { kernel(gate.as_ptr(), up.as_ptr(), to.row(i).as_mut_ptr(), n) };
    });
}

/// `out = activation(gate) * values[:, column..column + n]` with `gate` of width `n`.
pub(crate) fn activate_and_mul_columns(
    team: &Team,
    kernels: &RowKernels,
    activation: Activation,
    gate: &Tensor,
    values: &Tensor,
    column: usize,
    out: &mut Tensor,
) {
    let n = gate.cols();
    assert_eq!((out.cols(), values.rows()), (n, gate.rows()), "shapes of activate_and_mul_columns");
    let kernel = kernels.activate_and_mul(activation);
    out.set_rows(gate.rows());
    let to = out.shared();
    for_each_row(team, gate.rows(), n, |i| {
        let (gate, up) = (gate.row(i), &values.row(i)[column..column + n]);
        // SAFETY: row `i` of the output, `n` values, is visited once.
        unsafe { kernel(gate.as_ptr(), up.as_ptr(), to.row(i).as_mut_ptr(), n) };
    });
}

/// `sum += x`. An addition is rounded alike everywhere, so there are no kernels for it.
pub(crate) fn add(team: &Team, x: &Tensor, sum: &mut Tensor) {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!((sum.rows(), sum.cols()), (rows, cols), "shape of the sum");
    let to = sum.shared();
    for_each_row(team, rows, cols, |i| {
        // SAFETY: row `i` is visited once.
        unsafe { to.row(i) }.iter_mut().zip(x.row(i)).for_each(|(sum, x)| *sum += x);
    });
}

/// `x[i] *= by.of(i)`. A multiplication is rounded alike everywhere, so there are no kernels for it.
pub(crate) fn scale(team: &Team, x: &mut Tensor, by: Scale<'_>) {
    let (rows, cols) = (x.rows(), x.cols());
    let to = x.shared();
    for_each_row(team, rows, cols, |i| {
        let factor = by.of(i);
        // SAFETY: row `i` is visited once.
        unsafe { to.row(i) }.iter_mut().for_each(|value| *value *= factor);
    });
}

/// `x = cap * tanh(x / cap)`.
pub(crate) fn soft_cap(team: &Team, kernels: &RowKernels, x: &mut Tensor, cap: f32) {
    let (rows, cols) = (x.rows(), x.cols());
    let to = x.shared();
    for_each_row(team, rows, cols, |i| {
        // SAFETY: row `i`, `cols` values, is visited once.
        unsafe { (kernels.soft_cap)(to.row(i).as_mut_ptr(), cap, cols) };
    });
}

/// `out[i] = x[rows[i]]`.
pub(crate) fn gather_rows(team: &Team, x: &Tensor, rows: &[u32], out: &mut Tensor) {
    assert_eq!(out.cols(), x.cols(), "columns of gather_rows");
    out.set_rows(rows.len());
    let to = out.shared();
    for_each_row(team, rows.len(), x.cols(), |i| {
        // SAFETY: row `i` of the output is visited once.
        unsafe { to.row(i) }.copy_from_slice(x.row(rows[i] as usize));
    });
}

#[cfg(test)]
mod tests;
