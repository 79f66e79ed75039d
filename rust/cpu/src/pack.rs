//! Packing: weights are rearranged once, when they are loaded, as the matmul reads them.
//!
//! Rows are interleaved in groups, so that one vector load has a weight for every output of a group and no kernel sums across
//! lanes. A group is `lanes` consecutive rows (16 for AVX-512, 8 otherwise). [`layout`](crate::layout) says how
//! quantised types lie in it. Dense types are `[input][lane]`, bf16 `[input / 2][lane][input % 2]` with an odd last input paired
//! with zero. Rows past the end are zero.

use std::cell::RefCell;

use half::{bf16, f16};
use nanovllm_backend::{DType, Error, FilePart, Result, WeightPart};

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
    data: Data,
}

/// Where a matrix lies.
enum Data {
    /// Packed, in memory.
    Packed(Piece),
    /// As stored, in its file: each group is packed when it is used.
    Stored { part: FilePart, dtype: DType },
}

/// Bytes at an address that suits the widest vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// Where this thread packs the group that it is about to use.
    static ROOM: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
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
        let format = checked(part)?;
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
                    pack_group(&WeightPart { dtype, rows, cols, data }, format, lanes, group, out);
                }
            }
        });
        Ok(Self { format, rows, cols, lanes, data: Data::Packed(packed) })
    }

    /// The same matrix, which stays where it lies in its file.
    pub(crate) fn stored(part: &WeightPart<'_>, data: &FilePart, lanes: usize) -> Result<Self> {
        let format = checked(part)?;
        let WeightPart { dtype, rows, cols, .. } = *part;
        let (expected, got) = (part.data.len(), data.bytes().len());
        if got != expected {
            return Err(Error::Shape { what: "bytes of a weight in its file", expected, got });
        }
        Ok(Self { format, rows, cols, lanes, data: Data::Stored { part: data.clone(), dtype } })
    }

    /// How many groups there are, the last one padded with rows of zeros.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(self.lanes)
    }

    /// Calls `with` with the bytes of a group.
    #[inline]
    pub(crate) fn with_group<T>(&self, group: usize, with: impl FnOnce(&[u8]) -> T) -> T {
        let &Self { format, rows, cols, lanes, .. } = self;
        let bytes = format.group_bytes(lanes, cols);
        match &self.data {
            Data::Packed(packed) => with(&packed.as_slice()[group * bytes..(group + 1) * bytes]),
            Data::Stored { part, dtype } => ROOM.with_borrow_mut(|room| {
                room.clear();
                room.resize(bytes.div_ceil(size_of::<Line>()), Line([0; 64]));
                // SAFETY: the lines are that many bytes, one after the other, and nothing else refers to them.
                let room = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u8>(), bytes) };
                let part = WeightPart { dtype: *dtype, rows, cols, data: part.bytes() };
                pack_group(&part, format, lanes, group, room);
                with(room)
            }),
        }
    }

    /// Bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match &self.data {
            Data::Packed(packed) => packed.len(),
            Data::Stored { .. } => 0,
        }
    }

    /// Writes the weights of row `row` as f32, to the bit those that GGUF's dequantiser of its type gives.
    pub(crate) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        self.with_group(row / self.lanes, |group| self.unpack_lane(group, row % self.lanes, out));
    }

    fn unpack_lane(&self, group: &[u8], lane: usize, out: &mut [f32]) {
        let lanes = self.lanes;
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

/// The format in which the weights of `part` are computed on, where its bytes are those of its shape.
fn checked(part: &WeightPart<'_>) -> Result<Format> {
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
    Ok(format)
}

/// Packs the rows of a group into `out`, which is zeroed.
fn pack_group(part: &WeightPart<'_>, format: Format, lanes: usize, group: usize, out: &mut [u8]) {
    let row_bytes = part.data.len() / part.rows.max(1);
    let first = group * lanes;
    for lane in 0..lanes.min(part.rows - first) {
        let row = &part.data[(first + lane) * row_bytes..(first + lane + 1) * row_bytes];
        pack_row(part.dtype, format, lanes, lane, row, out);
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
