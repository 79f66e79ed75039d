//! The three facts about a layout, and what follows from them: where each bit of a code lies, and how large everything is.

/// Inputs of a block.
pub(crate) const BLOCK: usize = 32;
/// How many fours of neighbouring inputs a block has.
pub(crate) const FOURS: usize = BLOCK / 4;

/// What a code stands for before it is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// The code less this offset.
    Offset(u8),
    /// The entry of a table of up to 16 signed bytes; added to any of them, this makes an unsigned byte of as many bits.
    Table(u8),
}

/// What codes are scaled with. `d` and `m` are f16, the others a byte or a nibble each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// A `d` for each 32 inputs.
    Half,
    /// A `d`, and an `m` that is added, for each 32 inputs.
    HalfMin,
    /// `2^(byte - 128)` for each 32 inputs.
    Exponent,
    /// A `d` for each 256 inputs, times a signed byte for each 32.
    Signed,
    /// A `d` for each 256 inputs, times a signed byte for each 16.
    SignedPairs,
    /// A `d` and an `m` for each 256 inputs. For each 32, `d` times a byte scales, and `m` times another is subtracted.
    Minimum,
    /// The same for each 16 inputs, with the two nibbles of one byte, that of the scale the low one.
    MinimumPairs,
}

/// The three facts about a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bits of a code: 2, 3, 4, 5, 6 or 8.
    pub(crate) bits: usize,
    pub(crate) values: Values,
    pub(crate) scales: Scales,
}

/// Where the low or the high bits of the four codes of a four lie: in the same bits of each byte of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Which of the vectors of the block's codes.
    pub(crate) vector: usize,
    /// Their lowest bit in each byte.
    pub(crate) shift: usize,
    /// As many ones as there are bits, from bit 0.
    pub(crate) mask: u8,
}

/// What the two runs of a block are multiplied with, and the minimums that are then added: of one row as f32, or of a group in
/// vectors. Both entries are the same where a block has one scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RunScales<T> {
    pub(crate) scale: [T; 2],
    /// Of no meaning where the shape has no minimum, and then zero in f32.
    pub(crate) min: [T; 2],
}

impl Shape {
    /// How many bits of a code lie in the low vectors.
    #[inline(always)]
    pub(crate) const fn low_bits(self) -> usize {
        match self.bits {
            2 | 3 => 2,
            8 => 8,
            _ => 4,
        }
    }

    /// Where the low bits of the codes of four `j` lie.
    #[inline(always)]
    pub(crate) const fn low(self, j: usize) -> Field {
        field(0, self.low_bits(), j)
    }

    /// Where the rest of the bits lie; `None` where there are no more.
    #[inline(always)]
    pub(crate) const fn high(self, j: usize) -> Option<Field> {
        let (low, high) = (self.low_bits(), self.bits - self.low_bits());
        if high == 0 { None } else { Some(field(low, high, j)) }
    }

    /// How many blocks share halves.
    pub(crate) const fn blocks(self) -> usize {
        match self.scales {
            Scales::Half | Scales::HalfMin | Scales::Exponent => 1,
            Scales::Signed | Scales::SignedPairs | Scales::Minimum | Scales::MinimumPairs => 8,
        }
    }

    /// How many scale bytes each lane has for a block.
    pub(crate) const fn scale_bytes(self) -> usize {
        match self.scales {
            Scales::Half | Scales::HalfMin => 0,
            Scales::Exponent | Scales::Signed => 1,
            Scales::SignedPairs | Scales::Minimum | Scales::MinimumPairs => 2,
        }
    }

    /// How many halves each lane has for the [`blocks`](Self::blocks) that share them.
    pub(crate) const fn halves(self) -> usize {
        match self.scales {
            Scales::Exponent => 0,
            Scales::Half | Scales::Signed | Scales::SignedPairs => 1,
            Scales::HalfMin | Scales::Minimum | Scales::MinimumPairs => 2,
        }
    }

    /// How many runs with a scale of their own a block has: 1 or 2.
    pub(crate) const fn runs(self) -> usize {
        if matches!(self.scales, Scales::SignedPairs | Scales::MinimumPairs) { 2 } else { 1 }
    }

    /// Whether a minimum is added.
    pub(crate) const fn has_min(self) -> bool {
        matches!(self.scales, Scales::HalfMin | Scales::Minimum | Scales::MinimumPairs)
    }

    /// What is subtracted from a code, or from a table's entry made unsigned: 0 or a power of two.
    pub(crate) const fn offset(self) -> u8 {
        match self.values {
            Values::Offset(offset) | Values::Table(offset) => offset,
        }
    }

    /// The largest code, or table entry made unsigned.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // byte products alone ask
    pub(crate) const fn largest(self) -> usize {
        match self.values {
            Values::Offset(_) => (1 << self.bits) - 1,
            Values::Table(offset) => 2 * offset as usize - 1,
        }
    }

    /// Bytes of the codes of a block, for all lanes.
    pub(crate) const fn code_bytes(self, lanes: usize) -> usize {
        self.bits * lanes * 4
    }

    /// Bytes of the blocks that share halves, for all lanes.
    pub(crate) const fn bytes(self, lanes: usize) -> usize {
        self.blocks() * (self.code_bytes(lanes) + self.scale_bytes() * lanes) + self.halves() * lanes * 2
    }

    /// The scales of a block of one lane, rounded as GGUF's dequantisers round them; `byte` gives its scale bytes.
    pub(crate) fn run_scales(self, byte: impl Fn(usize) -> u8, [d, m]: [f32; 2]) -> RunScales<f32> {
        let same = |scale: f32, min: f32| RunScales { scale: [scale; 2], min: [min; 2] };
        let signed = |i: usize| d * f32::from(byte(i) as i8);
        match self.scales {
            Scales::Half => same(d, 0.0),
            Scales::HalfMin => same(d, m),
            Scales::Exponent => same(exponent(byte(0)), 0.0),
            Scales::Signed => same(signed(0), 0.0),
            Scales::SignedPairs => RunScales { scale: [signed(0), signed(1)], min: [0.0; 2] },
            Scales::Minimum => same(d * f32::from(byte(0)), -(m * f32::from(byte(1)))),
            Scales::MinimumPairs => RunScales {
                scale: [0, 1].map(|i| d * f32::from(byte(i) & 15)),
                min: [0, 1].map(|i| -(m * f32::from(byte(i) >> 4))),
            },
        }
    }

    /// What codes stand for.
    pub(crate) fn values(self, codes: [u8; BLOCK], table: &[i8; 16]) -> [i8; BLOCK] {
        match self.values {
            Values::Offset(offset) => codes.map(|code| code.wrapping_sub(offset).cast_signed()),
            Values::Table(_) => codes.map(|code| table[usize::from(code & 15)]),
        }
    }
}

/// Where four `j` lies of fields of `bits` bits, as many as fit in each byte, from vector `first` on.
#[inline(always)]
const fn field(first: usize, bits: usize, j: usize) -> Field {
    Field { vector: first + j * bits / 8, shift: j * bits % 8, mask: ((1u16 << bits) - 1) as u8 }
}

/// `2^(e - 128)`, subnormal below 2.
fn exponent(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}
