//! The searches for scales and codes, by which a group of elements is quantised.
//!
//! The rule is ggml's (`make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`): the error is weighted, since a weight
//! matters by the activations it meets and large weights meet more of the output; candidate scales spread around the
//! one that spans the range; each candidate's codes are kept and its scale refitted by least squares. Sums run in the
//! same order as ggml's, so the blocks come out the same, byte for byte. Groups, or candidates, are worked on side by
//! side, one a vector lane, which keeps that order within each.

mod affine;
mod descent;
mod symmetric;

pub(super) use affine::{Grid, affine, multiples};
pub(super) use descent::descent;
pub(super) use symmetric::{requantize, symmetric};
