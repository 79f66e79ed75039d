//! Instruction sets as values: chosen when the program runs, never when it is compiled.

use std::fmt;
use std::str::FromStr;

use nanovllm_backend::Error;

/// Whether an x86-64 machine has all of these features; false on any other.
macro_rules! x86_64 {
    ($($feature:tt),*) => {{
        #[cfg(target_arch = "x86_64")]
        let all = true $(&& is_x86_feature_detected!($feature))*;
        #[cfg(not(target_arch = "x86_64"))]
        let all = false;
        all
    }};
}

/// One row for each set: its documentation, its variant, the option's word for it, and whether this machine has it.
macro_rules! instruction_sets {
    ($($(#[$doc:meta])* $set:ident, $name:literal, $available:expr;)*) => {
        /// A set of instructions that the kernels are compiled for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Isa { $($(#[$doc])* $set,)* }

        impl Isa {
            /// Every set, each faster than those before it on a machine that has both.
            pub const ALL: &'static [Self] = &[$(Self::$set,)*];

            /// Whether this machine has it.
            pub fn is_available(self) -> bool {
                match self { $(Self::$set => $available,)* }
            }

            /// What the option `isa` calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$set => $name,)* }
            }
        }
    };
}

// The features must cover those that the kernels of the set are compiled with (`kernels/<set>/table.rs`).
instruction_sets! {
    /// Portable Rust, on every machine.
    Scalar, "scalar", true;
    /// AVX2, FMA and F16C.
    Avx2, "avx2", x86_64!("avx2", "fma", "f16c");
    /// [`Avx2`](Self::Avx2) and the byte products of AVX-VNNI.
    AvxVnni, "avx-vnni", x86_64!("avx2", "fma", "f16c", "avxvnni");
    /// [`Avx2`](Self::Avx2) and AVX-512 F, BW, DQ, VL and VNNI.
    Avx512, "avx512", x86_64!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni");
    /// [`Avx512`](Self::Avx512) and AVX-512 BF16.
    Avx512Bf16, "avx512-bf16",
        x86_64!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16");
}

impl Isa {
    /// The sets this machine has, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|isa| isa.is_available()).collect()
    }

    /// The best set this machine has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// The error of an option that asks for a set this machine does not have.
    pub(crate) fn missing(self) -> Error {
        Error::Option(format!("this machine does not have the instruction set {self}"))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let isa = Self::ALL.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|isa| isa.name()).collect();
            Error::Option(format!("unknown instruction set {name:?}; known: {}", known.join(", ")))
        })?;
        if isa.is_available() { Ok(isa) } else { Err(isa.missing()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_the_unknown_is_named() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse::<Isa>().expect("available"), isa);
        }
        let error = "sse9".parse::<Isa>().expect_err("unknown").to_string();
        assert!(error.contains("sse9") && error.contains("avx2"));
        assert!(Isa::detect().is_available());
    }
}
