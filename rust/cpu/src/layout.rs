//! How packed quantised weights lie in memory, as data that packing, the portable kernel and the vector kernels all read.
//!
//! A matrix is cut into groups of `lanes` rows, a group into blocks of 32 inputs. A block's codes are `bits` vectors of
//! `4 * lanes` bytes: the four bytes of a lane belong to four consecutive inputs, and each byte of the low vectors holds the
//! low 2, 4 or 8 bits of as many codes as fit, `j`, `j + 1`, ... counted in fours of inputs. The fifth and sixth bits (the
//! third of 3-bit codes) follow in vectors of their own, packed alike. After the codes of all the blocks that share halves
//! come their scale bytes, `[block][byte][lane]`, then the halves, `[half][lane]`.

mod block;
mod shape;

pub(crate) use block::{StoredBlock, pack_block, unpack_block};
pub(crate) use shape::{BLOCK, FOURS, RunScales, Scales, Shape, Values};

/// A layout as a type, so that a kernel is compiled for each.
pub(crate) trait Coded: 'static {
    const SHAPE: Shape;
}

/// Defines the layouts, one a row: bits of a code, what a code stands for, what scales it.
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident: $bits:literal, $values:expr, $scales:ident;)*) => {
        /// A layout that the kernels are compiled for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types)] // the formats' names
        pub(crate) enum Layout { $($(#[$doc])* $name,)* }

        impl Layout {
            pub(crate) const COUNT: usize = [$(Layout::$name,)*].len();

            pub(crate) const fn shape(self) -> Shape {
                match self { $(Self::$name => <$name as Coded>::SHAPE,)* }
            }
        }

        $(
            #[allow(non_camel_case_types)] // as above
            pub(crate) struct $name;
            impl Coded for $name {
                const SHAPE: Shape = Shape { bits: $bits, values: $values, scales: Scales::$scales };
            }
        )*

        /// What [`ForLayout::of`] gives for each layout, in order.
        pub(crate) fn for_each<F: ForLayout>() -> [F::Result; Layout::COUNT] {
            [$(F::of::<$name>(),)*]
        }
    };
}

/// A function from a layout, as a type, to a value.
pub(crate) trait ForLayout {
    type Result;
    fn of<C: Coded>() -> Self::Result;
}

layouts! {
    Q8_0: 8, Values::Offset(128), Half;
    Q4_0: 4, Values::Offset(8), Half;
    Q4_1: 4, Values::Offset(0), HalfMin;
    Q5_0: 5, Values::Offset(16), Half;
    Q5_1: 5, Values::Offset(0), HalfMin;
    Q2_K: 2, Values::Offset(0), MinimumPairs;
    Q3_K: 3, Values::Offset(4), SignedPairs;
    Q4_K: 4, Values::Offset(0), Minimum;
    Q5_K: 5, Values::Offset(0), Minimum;
    Q6_K: 6, Values::Offset(32), SignedPairs;
    /// IQ4_NL.
    Table4Half: 4, Values::Table(128), Half;
    /// IQ4_XS and IQ3.
    Table4Signed: 4, Values::Table(128), Signed;
    /// IQ1 and IQ2.
    Table3Signed: 3, Values::Table(64), SignedPairs;
    /// MXFP4.
    Table4Exponent: 4, Values::Table(16), Exponent;
}
