//! The codebooks of the IQ formats: points of a lattice, of four or eight coordinates.
//!
//! A code is the rank of its point among the codebook's, ordered by their coordinates from the last to the first. The
//! files are bitmaps over all points, made by `tests/tools/make_codebooks.py`, and become tables at compile time.

/// Magnitudes by digit; two bits' worth for IQ2, three for IQ3.
const IQ2: [u8; 3] = [8, 25, 43];
const IQ3_XXS_MAGNITUDES: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S_MAGNITUDES: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

pub(super) static IQ1: [[i8; 8]; 2048] = table(include_bytes!("codebooks/iq1_s.bin"), [-1, 0, 1]);
pub(super) static IQ2_XXS: [[u8; 8]; 256] = table(include_bytes!("codebooks/iq2_xxs.bin"), IQ2);
pub(super) static IQ2_XS: [[u8; 8]; 512] = table(include_bytes!("codebooks/iq2_xs.bin"), IQ2);
pub(super) static IQ2_S: [[u8; 8]; 1024] = table(include_bytes!("codebooks/iq2_s.bin"), IQ2);
pub(super) static IQ3_XXS: [[u8; 4]; 256] = table(include_bytes!("codebooks/iq3_xxs.bin"), IQ3_XXS_MAGNITUDES);
pub(super) static IQ3_S: [[u8; 4]; 512] = table(include_bytes!("codebooks/iq3_s.bin"), IQ3_S_MAGNITUDES);

/// The points whose bits are set: point `n` has the base-`BASE` digits of `n`, the least significant first.
const fn table<T: Copy, const BASE: usize, const LEN: usize, const POINTS: usize>(
    members: &[u8],
    magnitudes: [T; BASE],
) -> [[T; LEN]; POINTS] {
    let mut points = [[magnitudes[0]; LEN]; POINTS];
    let (mut rank, mut number) = (0, 0);
    while number < 8 * members.len() {
        if members[number / 8] >> (number % 8) & 1 == 1 {
            let (mut rest, mut i) = (number, 0);
            while i < LEN {
                points[rank][i] = magnitudes[rest % BASE];
                rest /= BASE;
                i += 1;
            }
            rank += 1;
        }
        number += 1;
    }
    assert!(rank == POINTS, "the codebook has as many points as codes");
    points
}

/// The signs of eight elements from seven: the eighth makes the number of negative ones even.
pub(super) const fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 0x7f) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Writes `scale` times the magnitudes, element `i` negated where bit `i` of `signs` is set.
pub(super) fn signed(out: &mut [f32], scale: f32, magnitudes: &[u8], signs: u8) {
    for (i, (out, &magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let value = scale * magnitude as f32;
        *out = if signs >> i & 1 == 1 { -value } else { value };
    }
}
