//! The searches for the scale and the codes of a group: 16 or 32 elements of a super-block that share a scale.
//!
//! They are ggml's (`make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`). Errors are weighted, because one in a
//! large weight changes the output more. Candidate scales spread around the one that spans the range; the codes of each
//! are kept and its scale is refitted by least squares. Sums run in the same order as ggml's, so blocks come out the
//! same, byte for byte. Groups, or candidates, are worked on side by side, one in each vector lane, which keeps that
//! order within each.

mod affine;
mod descent;
mod symmetric;

pub(super) use affine::{Grid, affine, multiples};
pub(super) use descent::descent;
pub(super) use symmetric::{requantize, symmetric};
