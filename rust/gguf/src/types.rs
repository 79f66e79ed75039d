//! The element types of tensors, in a table with a row for each.

use std::fmt;

use crate::quant::codec::Codec;
use crate::quant::*;

macro_rules! types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $codec:expr;)*) => {
        /// The element type of a tensor, with ggml's numbering.
        ///
        /// A quantised type stores blocks of [`block_size`](Self::block_size) consecutive elements of a row in
        /// [`type_size`](Self::type_size) bytes; a dense type is a block of one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types)] // the field writes Q4_0 and IQ2_XXS
        #[repr(u32)]
        #[non_exhaustive]
        pub enum GgmlType { $($(#[$doc])* $variant = $id,)* }

        impl GgmlType {
            /// Every type, in the order of ggml's numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with ggml's number `id`.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// ggml's name in upper case, such as "Q4_0".
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How elements of the type are stored, read and written.
            pub(crate) const fn codec(self) -> &'static Codec {
                match self { $(Self::$variant => const { &$codec },)* }
            }
        }
    };
}

// ggml's number and name, and how the type is stored. Blocks that are `read_only` take an importance matrix to make.
types! {
    /// IEEE 754 floats of 32 bits.
    F32 = 0, "F32", dense::F32;
    /// IEEE 754 floats of 16 bits.
    F16 = 1, "F16", dense::F16;
    /// 4-bit codes, one f16 scale per 32.
    Q4_0 = 2, "Q4_0", Codec::read_write::<BlockQ4_0>();
    /// 4-bit codes, f16 scale and minimum per 32.
    Q4_1 = 3, "Q4_1", Codec::read_write::<BlockQ4_1>();
    /// 5-bit codes, one f16 scale per 32.
    Q5_0 = 6, "Q5_0", Codec::read_write::<BlockQ5_0>();
    /// 5-bit codes, f16 scale and minimum per 32.
    Q5_1 = 7, "Q5_1", Codec::read_write::<BlockQ5_1>();
    /// 8-bit codes, one f16 scale per 32.
    Q8_0 = 8, "Q8_0", Codec::read_write::<BlockQ8_0>();
    /// 8-bit codes, f16 scale and scaled sum per 32 (activations).
    Q8_1 = 9, "Q8_1", Codec::read_write::<BlockQ8_1>();
    /// 2-bit codes in super-blocks of 256.
    Q2_K = 10, "Q2_K", Codec::read_write::<BlockQ2_K>();
    /// 3-bit codes in super-blocks of 256.
    Q3_K = 11, "Q3_K", Codec::read_write::<BlockQ3_K>();
    /// 4-bit codes in super-blocks of 256.
    Q4_K = 12, "Q4_K", Codec::read_write::<BlockQ4_K>();
    /// 5-bit codes in super-blocks of 256.
    Q5_K = 13, "Q5_K", Codec::read_write::<BlockQ5_K>();
    /// 6-bit codes in super-blocks of 256.
    Q6_K = 14, "Q6_K", Codec::read_write::<BlockQ6_K>();
    /// 8-bit codes in super-blocks of 256 (activations).
    Q8_K = 15, "Q8_K", Codec::read_write::<BlockQ8_K>();
    /// 2.06 bits a weight from a lattice codebook.
    IQ2_XXS = 16, "IQ2_XXS", Codec::read_only::<BlockIQ2_XXS>();
    /// 2.31 bits a weight from a lattice codebook.
    IQ2_XS = 17, "IQ2_XS", Codec::read_only::<BlockIQ2_XS>();
    /// 3.06 bits a weight from a lattice codebook.
    IQ3_XXS = 18, "IQ3_XXS", Codec::read_only::<BlockIQ3_XXS>();
    /// 1.56 bits a weight from a codebook.
    IQ1_S = 19, "IQ1_S", Codec::read_only::<BlockIQ1_S>();
    /// 4-bit non-linear codes, one f16 scale per 32.
    IQ4_NL = 20, "IQ4_NL", Codec::read_write::<BlockIQ4_NL>();
    /// 3.44 bits a weight from a codebook.
    IQ3_S = 21, "IQ3_S", Codec::read_only::<BlockIQ3_S>();
    /// 2.5 bits a weight from a codebook.
    IQ2_S = 22, "IQ2_S", Codec::read_only::<BlockIQ2_S>();
    /// 4-bit non-linear codes in super-blocks of 256.
    IQ4_XS = 23, "IQ4_XS", Codec::read_write::<BlockIQ4_XS>();
    /// Signed integers of 8 bits.
    I8 = 24, "I8", dense::I8;
    /// Signed integers of 16 bits.
    I16 = 25, "I16", dense::I16;
    /// Signed integers of 32 bits.
    I32 = 26, "I32", dense::I32;
    /// Signed integers of 64 bits.
    I64 = 27, "I64", dense::I64;
    /// IEEE 754 floats of 64 bits.
    F64 = 28, "F64", dense::F64;
    /// 1.75 bits a weight from a codebook.
    IQ1_M = 29, "IQ1_M", Codec::read_only::<BlockIQ1_M>();
    /// The upper 16 bits of an f32.
    Bf16 = 30, "BF16", dense::BF16;
    /// Ternary, 1.69 bits a weight.
    TQ1_0 = 34, "TQ1_0", Codec::read_write::<BlockTQ1_0>();
    /// Ternary, 2.06 bits a weight.
    TQ2_0 = 35, "TQ2_0", Codec::read_write::<BlockTQ2_0>();
    /// OCP microscaling 4-bit floats, one power-of-two scale per 32.
    MXFP4 = 39, "MXFP4", Codec::read_write::<BlockMXFP4>();
}

impl GgmlType {
    /// Elements in a block.
    pub const fn block_size(self) -> usize {
        self.codec().block_size
    }

    /// Bytes in a block.
    pub const fn type_size(self) -> usize {
        self.codec().type_size
    }

    /// Whether elements are integers, which no weight is made of.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// The bytes of `elements` consecutive elements; `None` where they are not whole blocks or the number overflows.
    pub const fn bytes_for(self, elements: usize) -> Option<usize> {
        if elements.is_multiple_of(self.block_size()) {
            (elements / self.block_size()).checked_mul(self.type_size())
        } else {
            None
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
