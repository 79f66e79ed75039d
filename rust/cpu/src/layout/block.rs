//! Blocks of a row on their way into a group, and back.

use half::f16;

use super::shape::{BLOCK, FOURS, Field, RunScales, Shape};

/// A block or super-block as a file stores it, taken apart.
pub(crate) struct StoredBlock {
    /// Unsigned codes, in the order of the inputs.
    pub(crate) codes: [u8; 256],
    /// [`Shape::scale_bytes`] bytes for each 32 inputs.
    pub(crate) scales: [u8; 16],
    /// f16 `d` and `m`, little-endian.
    pub(crate) halves: [[u8; 2]; 2],
}

impl StoredBlock {
    pub(crate) const EMPTY: Self = Self { codes: [0; 256], scales: [0; 16], halves: [[0; 2]; 2] };
}

/// Writes the 32 inputs from `32 * from` on of `stored` to lane `lane` of a group. `out` has the blocks of the group that share
/// halves, and among them they become block `to`. Codes are added to what must be zeros.
pub(crate) fn pack_block(
    shape: Shape,
    lanes: usize,
    lane: usize,
    stored: &StoredBlock,
    from: usize,
    to: usize,
    out: &mut [u8],
) {
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

/// What the codes of a block of lane `lane` stand for, and their scales. `bytes` has the blocks of the group that share halves,
/// and the block is `b` among them.
#[inline(always)]
pub(crate) fn unpack_block(
    shape: Shape,
    (table, factor): (&[i8; 16], f32),
    lanes: usize,
    lane: usize,
    bytes: &[u8],
    b: usize,
) -> ([i8; BLOCK], RunScales<f32>) {
    let (codes, rest) = bytes.split_at(shape.blocks() * shape.code_bytes(lanes));
    let codes = &codes[b * shape.code_bytes(lanes)..][..shape.code_bytes(lanes)];
    let bits = |field: Field| {
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
    (shape.values(unpacked, table), shape.run_scales(byte, dm))
}
