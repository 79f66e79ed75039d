//! Packing: weights are rearranged once, when they are loaded, as the matmul reads them.
//!
//! Rows are interleaved in groups, so that one vector load has a weight for every output of a group and no kernel sums across
//! lanes. A group is `lanes` consecutive rows (16 for AVX-512, 8 otherwise). [`layout`](crate::layout) says how
//! quantised types lie in it. Dense types are `[input][lane]`, bf16 `[input / 2][lane][input % 2]` with an odd last input paired
//! with zero. Rows past the end are zero.

use half::{bf16, f16};
use nanovllm_backend::{DType, Error, Result, WeightPart};

use crate::arena::{Arena, Piece};
use crate::claims::Claims;
use crate::format::{Coding, Format};
use crate::layout::{BLOCK, StoredBlock, pack_block, unpack_block};
use crate::team::Team;

/// A packed matrix of one type.
pub(crate) struct Packed {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) lanes: usize,
    data: Piece,
}

/// The bytes of a matrix being packed, written group by group from several threads.
#[derive(Clone, Copy)]
struct Destination(*mut u8);
// SAFETY: each group is written by the one thread that claimed it, and groups do not overlap.
unsafe impl Sync for Destination {}

impl Packed {
    /// Packs `part` into groups of `lanes` rows, in memory of `arena`.
    pub(crate) fn new(part: &WeightPart<'_>, lanes: usize, arena: &Arena, team: &Team) -> Result<Self> {
        let WeightPart { dtype, rows, cols, data } = *part;
        let format = Format::of(dtype).ok_or(Error::UnsupportedDType { device: "cpu", what: "a weight", dtype })?;
        let row_bytes = dtype.bytes_for(cols).ok_or(Error::Shape {
            what: "columns of a quantised weight, to be a multiple of its block",
            expected: cols.next_multiple_of(dtype.block_size()),
            got: cols,
        })?;
        if row_bytes.checked_mul(rows) != Some(data.len()) {
            let expected = row_bytes.saturating_mul(rows);
            return Err(Error::Shape { what: "bytes of a weight", expected, got: data.len() });
        }
        let groups = rows.div_ceil(lanes);
        let group_bytes = format.group_bytes(lanes, cols);
        let mut packed = arena.zeroed(groups.saturating_mul(group_bytes), "a packed weight")?;
        let destination = Destination(packed.as_mut_ptr());
        let claims = Claims::new(groups);
        team.run(|_| {
            let destination = &destination;
            while let Some(range) = claims.take(4) {
                for group in range {
                    // SAFETY: `groups * group_bytes` bytes were allocated, and this thread alone claimed this group.
                    let out =
                        unsafe { std::slice::from_raw_parts_mut(destination.0.add(group * group_bytes), group_bytes) };
                    let first = group * lanes;
                    for lane in 0..lanes.min(rows - first) {
                        let row = &data[(first + lane) * row_bytes..(first + lane + 1) * row_bytes];
                        pack_row(dtype, format, lanes, lane, row, out);
                    }
                }
            }
        });
        Ok(Self { format, rows, cols, lanes, data: packed })
    }

    /// How many groups there are, the last one padded with rows of zeros.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(self.lanes)
    }

    /// The bytes of a group.
    pub(crate) fn group(&self, group: usize) -> &[u8] {
        let bytes = self.format.group_bytes(self.lanes, self.cols);
        &self.data.as_slice()[group * bytes..(group + 1) * bytes]
    }

    /// Bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Writes the weights of row `row` as f32, to the bit those that GGUF's dequantiser of its type gives.
    pub(crate) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (group, lanes, lane) = (self.group(row / self.lanes), self.lanes, row % self.lanes);
        let half_at = |at: usize| f16::from_le_bytes([group[at], group[at + 1]]).to_f32();
        match self.format {
            Format::F32 => {
                for (k, x) in out.iter_mut().enumerate() {
                    let at = (k * lanes + lane) * 4;
                    *x = f32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]]);
                }
            }
            Format::F16 => {
                for (k, x) in out.iter_mut().enumerate() {
                    *x = half_at((k * lanes + lane) * 2);
                }
            }
            Format::Bf16 => {
                for (k, x) in out.iter_mut().enumerate() {
                    let at = bf16_at(lanes, lane, k);
                    *x = bf16::from_le_bytes([group[at], group[at + 1]]).to_f32();
                }
            }
            Format::Quantized(coding) => unpack_blocks(coding, lanes, lane, group, out),
        }
    }
}

/// Where in a bf16 group input `k` of `lane` is.
fn bf16_at(lanes: usize, lane: usize, k: usize) -> usize {
    (k / 2 * lanes + lane) * 4 + k % 2 * 2
}

/// Scatters one stored row into its lane of a group.
fn pack_row(dtype: DType, format: Format, lanes: usize, lane: usize, row: &[u8], out: &mut [u8]) {
    match format {
        Format::F32 if dtype == DType::F64 => {
            for (k, x) in row.as_chunks::<8>().0.iter().enumerate() {
                out[(k * lanes + lane) * 4..][..4].copy_from_slice(&(f64::from_le_bytes(*x) as f32).to_le_bytes());
            }
        }
        Format::F32 => {
            for (k, x) in row.chunks_exact(4).enumerate() {
                out[(k * lanes + lane) * 4..][..4].copy_from_slice(x);
            }
        }
        Format::F16 => {
            for (k, x) in row.chunks_exact(2).enumerate() {
                out[(k * lanes + lane) * 2..][..2].copy_from_slice(x);
            }
        }
        Format::Bf16 => {
            for (k, x) in row.chunks_exact(2).enumerate() {
                out[bf16_at(lanes, lane, k)..][..2].copy_from_slice(x);
            }
        }
        Format::Quantized(coding) => {
            let shape = coding.layout.shape();
            let mut stored = StoredBlock::EMPTY;
            let blocks = dtype.block_size() / BLOCK;
            for (i, block) in row.chunks_exact(dtype.type_size()).enumerate() {
                (coding.read)(block, &mut stored);
                for b in 0..blocks {
                    let at = i * blocks + b;
                    let out = &mut out[at / shape.blocks() * shape.bytes(lanes)..][..shape.bytes(lanes)];
                    pack_block(shape, lanes, lane, &stored, b, at % shape.blocks(), out);
                }
            }
        }
    }
}

/// Dequantises one lane of a group.
fn unpack_blocks(coding: &Coding, lanes: usize, lane: usize, group: &[u8], out: &mut [f32]) {
    let shape = coding.layout.shape();
    let shared = shape.blocks() * BLOCK;
    for (out, bytes) in out.chunks_exact_mut(shared).zip(group.chunks_exact(shape.bytes(lanes))) {
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let (values, scales) = unpack_block(shape, (&coding.table, coding.factor), lanes, lane, bytes, b);
            for (k, (out, value)) in out.iter_mut().zip(values).enumerate() {
                let run = k / (BLOCK / 2);
                let scaled = f32::from(value) * scales.scale[run];
                *out = if shape.has_min() { scaled + scales.min[run] } else { scaled };
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
