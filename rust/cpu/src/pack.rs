//! Weights in the layout the matmul reads: rows interleaved in groups, so that one vector load feeds every output of a
//! group and no kernel sums across lanes.
//!
//! A group is `lanes` consecutive rows (16 for AVX-512, 8 for AVX2, 4 for portable code). For a quantised type, each run of
//! 32 inputs of a group is one block: the codes, interleaved by four inputs (`[input / 4][lane][input % 4]`), then one f16
//! scale a lane, then, where the type has them, one f16 minimum a lane. Four-bit codes keep GGUF's pairing: the low nibbles of
//! a byte are inputs 0 to 15, the high nibbles 16 to 31. Dense types are `[input][lane]`, bf16 `[input / 2][lane][input % 2]`
//! with an odd last input paired with zero. Rows past the end are zero.

use half::{bf16, f16};
use nanovllm_backend::{DType, Error, Result, WeightPart};

use crate::buffer::Buffer;
use crate::claims::Claims;
use crate::team::Team;

/// Inputs a quantised block covers.
pub(crate) const BLOCK: usize = 32;

/// How a packed matrix stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
}

impl Format {
    fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
            DType::Q8_0 => Self::Q8_0,
            DType::Q4_0 => Self::Q4_0,
            DType::Q4_1 => Self::Q4_1,
            _ => return None,
        })
    }

    /// Whether activations are quantised for it.
    pub(crate) const fn is_quantized(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    /// Bytes of one group's whole rows of `cols` inputs.
    pub(crate) const fn group_bytes(self, lanes: usize, cols: usize) -> usize {
        match self {
            Self::F32 => cols * lanes * 4,
            Self::F16 => cols * lanes * 2,
            Self::Bf16 => cols.div_ceil(2) * lanes * 4,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => cols / BLOCK * self.block_bytes(lanes),
        }
    }

    /// Bytes of codes in one row's block of a quantised type.
    pub(crate) const fn code_bytes(self) -> usize {
        match self {
            Self::Q8_0 => BLOCK,
            Self::Q4_0 | Self::Q4_1 => BLOCK / 2,
            Self::F32 | Self::F16 | Self::Bf16 => 0,
        }
    }

    /// Bytes of one group's block of a quantised type.
    pub(crate) const fn block_bytes(self, lanes: usize) -> usize {
        match self {
            Self::Q8_0 => lanes * (BLOCK + 2),
            Self::Q4_0 => lanes * (BLOCK / 2 + 2),
            Self::Q4_1 => lanes * (BLOCK / 2 + 4),
            Self::F32 | Self::F16 | Self::Bf16 => 0,
        }
    }
}

/// One packed matrix of one type.
pub(crate) struct Packed {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) lanes: usize,
    data: Buffer<u8>,
}

/// The bytes of a matrix being packed, written group by group from several threads.
#[derive(Clone, Copy)]
struct Destination(*mut u8);
// SAFETY: each group is claimed by one thread, and groups do not overlap.
unsafe impl Sync for Destination {}

impl Packed {
    /// Packs `part` into groups of `lanes` rows.
    pub(crate) fn new(part: &WeightPart<'_>, lanes: usize, team: &Team) -> Result<Self> {
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
        let mut packed = Buffer::zeroed(groups.saturating_mul(group_bytes), "a packed weight")?;
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
                        pack_row(format, lanes, lane, row, out);
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

    /// Writes row `row` as f32.
    pub(crate) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (group, lane, lanes) = (self.group(row / self.lanes), row % self.lanes, self.lanes);
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
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => {
                let blocks = group.chunks_exact(self.format.block_bytes(lanes));
                for (out, block) in out.chunks_exact_mut(BLOCK).zip(blocks) {
                    unpack_block(self.format, lanes, lane, block, out);
                }
            }
        }
    }
}

/// Byte of input `k` of `lane` in a bf16 group.
fn bf16_at(lanes: usize, lane: usize, k: usize) -> usize {
    (k / 2 * lanes + lane) * 4 + k % 2 * 2
}

/// Byte of code `k` (of the bytes, not nibbles) of `lane` in a quantised block.
fn code_at(lanes: usize, lane: usize, k: usize) -> usize {
    (k / 4 * lanes + lane) * 4 + k % 4
}

/// Scatters one stored row into its lane of a group.
fn pack_row(format: Format, lanes: usize, lane: usize, row: &[u8], out: &mut [u8]) {
    match format {
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
        Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => {
            let (stored, packed) = (format.block_bytes(1), format.block_bytes(lanes));
            for (block, out) in row.chunks_exact(stored).zip(out.chunks_exact_mut(packed)) {
                pack_block(format, lanes, lane, block, out);
            }
        }
    }
}

/// Scatters one stored block, f16 scale (and minimum) first, then codes.
fn pack_block(format: Format, lanes: usize, lane: usize, block: &[u8], out: &mut [u8]) {
    let code_bytes = format.code_bytes();
    let (halves, codes) = block.split_at(block.len() - code_bytes);
    for (k, four) in codes.chunks_exact(4).enumerate() {
        out[code_at(lanes, lane, 4 * k)..][..4].copy_from_slice(four);
    }
    for (i, half) in halves.chunks_exact(2).enumerate() {
        out[lanes * code_bytes + (i * lanes + lane) * 2..][..2].copy_from_slice(half);
    }
}

/// Dequantises one lane of one block, as ggml does.
fn unpack_block(format: Format, lanes: usize, lane: usize, block: &[u8], out: &mut [f32]) {
    let code_bytes = format.code_bytes();
    let half = |i: usize| {
        let at = lanes * code_bytes + (i * lanes + lane) * 2;
        f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
    };
    let scale = half(0);
    for k in 0..code_bytes {
        let byte = block[code_at(lanes, lane, k)];
        let (low, high) = (f32::from(byte & 15), f32::from(byte >> 4));
        match format {
            Format::Q4_0 => {
                out[k] = (low - 8.0) * scale;
                out[k + BLOCK / 2] = (high - 8.0) * scale;
            }
            Format::Q4_1 => {
                out[k] = low * scale + half(1);
                out[k + BLOCK / 2] = high * scale + half(1);
            }
            _ => out[k] = f32::from(byte as i8) * scale,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const DTYPES: [DType; 6] = [DType::F32, DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// Stored bytes of a random matrix of `dtype`, and its values as GGUF's own dequantiser gives them.
    pub(crate) fn random_weight(dtype: DType, rows: usize, cols: usize, seed: u64) -> (Vec<u8>, Vec<f32>) {
        let x = random(rows * cols, seed);
        let mut bytes = Vec::new();
        nanovllm_gguf::quantize(dtype, &x, &mut bytes).expect("supported");
        let mut values = vec![0.0; rows * cols];
        nanovllm_gguf::dequantize(dtype, &bytes, &mut values).expect("supported");
        (bytes, values)
    }

    /// Values in [-1, 1) from a linear congruential generator, with an occasional outlier.
    pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2862933555777941757).wrapping_add(3037000493);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                if (state >> 20).is_multiple_of(64) { x * 8.0 } else { x }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(
            which in 0..DTYPES.len(), rows in 1usize..40, blocks in 1usize..5, seed: u64,
            lanes in prop::sample::select(vec![4usize, 8, 16]),
        ) {
            let (dtype, cols) = (DTYPES[which], blocks * BLOCK);
            let (bytes, values) = random_weight(dtype, rows, cols, seed);
            let team = Team::new(1).expect("one");
            let packed = Packed::new(&WeightPart { dtype, rows, cols, data: &bytes }, lanes, &team).expect("packs");
            let mut row = vec![0.0; cols];
            for (i, expected) in values.chunks_exact(cols).enumerate() {
                packed.unpack_row(i, &mut row);
                prop_assert_eq!(&row[..], expected);
            }
        }
    }

    #[test]
    fn odd_columns_of_dense_types_pack() {
        let team = Team::new(2).expect("two");
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let (bytes, values) = random_weight(dtype, 5, 7, 3);
            let packed = Packed::new(&WeightPart { dtype, rows: 5, cols: 7, data: &bytes }, 4, &team).expect("packs");
            let mut row = vec![0.0; 7];
            packed.unpack_row(4, &mut row);
            assert_eq!(row[..], values[28..]);
        }
    }

    #[test]
    fn wrong_sizes_and_types_are_named() {
        let team = Team::new(1).expect("one");
        let pack = |dtype, rows, cols, data: &[u8]| {
            Packed::new(&WeightPart { dtype, rows, cols, data }, 8, &team)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        assert!(pack(DType::Q8_0, 1, 33, &[0; 34]).contains("64"));
        assert!(pack(DType::F32, 2, 2, &[0; 15]).contains("16"));
        assert!(pack(DType::IQ1_S, 1, 256, &[0; 50]).contains("IQ1_S"));
    }
}
