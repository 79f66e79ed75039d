//! Weights in the layout the matmul reads: rows interleaved in groups, so that one vector load feeds every output of a
//! group and no kernel sums across lanes.
//!
//! A group is `lanes` consecutive rows (16 for AVX-512, 8 for AVX2, 4 for portable code). [`layout`](crate::layout) says how
//! quantised types lie in it. Dense types are `[input][lane]`, bf16 `[input / 2][lane][input % 2]` with an odd last input paired
//! with zero. Rows past the end are zero.

use half::{bf16, f16};
use nanovllm_backend::{DType, Error, Result, WeightPart};

use crate::arena::{Arena, Piece};
use crate::claims::Claims;
use crate::format::{Coding, Format, Stored};
use crate::layout::{BLOCK, FOURS, Scaling, Shape};
use crate::team::Team;

/// One packed matrix of one type.
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
// SAFETY: each group is claimed by one thread, and groups do not overlap.
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

    /// Groups of rows, the last one padded.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(self.lanes)
    }

    /// The bytes of a group.
    pub(crate) fn group(&self, group: usize) -> &[u8] {
        let bytes = self.format.group_bytes(self.lanes, self.cols);
        &self.data.as_slice()[group * bytes..(group + 1) * bytes]
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Writes row `row` as f32, as GGUF's dequantiser of its type gives it.
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

/// Byte of input `k` of `lane` in a bf16 group.
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
            let mut stored = Stored::EMPTY;
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

/// Writes block `from` of `stored` as block `to` of those in `out` that share halves.
fn pack_block(shape: Shape, lanes: usize, lane: usize, stored: &Stored, from: usize, to: usize, out: &mut [u8]) {
    let (codes, rest) = out.split_at_mut(shape.blocks() * shape.code_bytes(lanes));
    let codes = &mut codes[to * shape.code_bytes(lanes)..];
    for (j, four) in stored.codes[from * BLOCK..].as_chunks::<4>().0.iter().take(FOURS).enumerate() {
        let four = u32::from_le_bytes(*four);
        for (field, four) in [(Some(shape.low(j)), four), (shape.high(j), four >> shape.low_bits())] {
            let Some(field) = field else { continue };
            let word = &mut codes[(field.vector * lanes + lane) * 4..][..4];
            let four = four & (u32::from(field.mask) * 0x0101_0101);
            for (byte, bits) in word.iter_mut().zip((four << field.shift).to_le_bytes()) {
                *byte |= bits;
            }
        }
    }
    let (scales, halves) = rest.split_at_mut(shape.blocks() * shape.scale_bytes() * lanes);
    let bytes = shape.scale_bytes();
    for (i, byte) in stored.scales[from * bytes..][..bytes].iter().enumerate() {
        scales[(to * bytes + i) * lanes + lane] = *byte;
    }
    for (i, half) in stored.halves.iter().take(shape.halves()).enumerate() {
        halves[(i * lanes + lane) * 2..][..2].copy_from_slice(half);
    }
}

/// The signed values and the scaling of block `b` of `lane`, of those in `bytes` that share halves.
#[inline(always)]
pub(crate) fn unpack_block(
    shape: Shape,
    (table, factor): (&[i8; 16], f32),
    lanes: usize,
    lane: usize,
    bytes: &[u8],
    b: usize,
) -> ([i8; BLOCK], Scaling) {
    let (codes, rest) = bytes.split_at(shape.blocks() * shape.code_bytes(lanes));
    let codes = &codes[b * shape.code_bytes(lanes)..][..shape.code_bytes(lanes)];
    let bits = |field: crate::layout::Field| {
        let at = (field.vector * lanes + lane) * 4;
        let word = u32::from_le_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]]);
        word >> field.shift & (u32::from(field.mask) * 0x0101_0101)
    };
    let mut unpacked = [0; BLOCK];
    for (j, four) in unpacked.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let high = shape.high(j).map_or(0, |field| bits(field) << shape.low_bits());
        *four = (bits(shape.low(j)) | high).to_le_bytes();
    }
    let (scales, halves) = rest.split_at(shape.blocks() * shape.scale_bytes() * lanes);
    let mut dm = [0.0; 2];
    for (i, half) in dm.iter_mut().take(shape.halves()).enumerate() {
        let at = (i * lanes + lane) * 2;
        *half = f16::from_le_bytes([halves[at], halves[at + 1]]).to_f32();
    }
    dm[0] *= factor;
    let byte = |i: usize| scales[(b * shape.scale_bytes() + i) * lanes + lane];
    (shape.values(unpacked, table), shape.scaling(byte, dm))
}

/// Dequantises one lane of a group.
fn unpack_blocks(coding: &Coding, lanes: usize, lane: usize, group: &[u8], out: &mut [f32]) {
    let shape = coding.layout.shape();
    let shared = shape.blocks() * BLOCK;
    for (out, bytes) in out.chunks_exact_mut(shared).zip(group.chunks_exact(shape.bytes(lanes))) {
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let (values, scaling) = unpack_block(shape, (&coding.table, coding.factor), lanes, lane, bytes, b);
            for (k, (out, value)) in out.iter_mut().zip(values).enumerate() {
                let run = k / (BLOCK / 2);
                let scaled = f32::from(value) * scaling.scale[run];
                *out = if shape.has_min() { scaled + scaling.min[run] } else { scaled };
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
