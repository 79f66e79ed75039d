//! The contract on every instruction set this machine has, with one thread and with two.

use nanovllm_backend::DType;
use nanovllm_backend::conformance::{Claims, PRODUCT, QUANTIZED};
use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions, Isa};

/// One or more of each layout; the rest of the types must be right as well, once.
const DTYPES: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::Bf16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::MXFP4,
];
/// 15-bit activations lose next to nothing.
const CLAIMS: Claims = Claims { dtypes: DTYPES, half: PRODUCT, quantized: 1e-7 };
/// 8-bit ones lose more.
const COARSE: Claims = Claims { quantized: QUANTIZED, ..CLAIMS };

/// The device, where the machine has the instruction set.
fn cpu(isa: Isa, num_threads: usize, activation_bits: ActivationBits) -> Option<CpuBackend> {
    let options = CpuOptions { num_threads: Some(num_threads), isa: Some(isa), activation_bits };
    isa.is_available().then(|| CpuBackend::new(options).expect("the machine has it"))
}

macro_rules! conformance_of {
    ($($name:ident: $isa:expr, $threads:expr, $bits:expr, $claims:expr;)*) => {
        $(mod $name {
            use super::*;
            nanovllm_backend::conformance_tests!(cpu($isa, $threads, $bits), $claims);
        })*
    };
}

conformance_of! {
    scalar_1: Isa::Scalar, 1, ActivationBits::Sixteen, CLAIMS;
    scalar_2: Isa::Scalar, 2, ActivationBits::Sixteen, CLAIMS;
    scalar_coarse: Isa::Scalar, 1, ActivationBits::Eight, COARSE;
    avx2_1: Isa::Avx2, 1, ActivationBits::Sixteen, CLAIMS;
    avx2_2: Isa::Avx2, 2, ActivationBits::Sixteen, CLAIMS;
    avx2_coarse: Isa::Avx2, 2, ActivationBits::Eight, COARSE;
    avx512_1: Isa::Avx512, 1, ActivationBits::Sixteen, CLAIMS;
    avx512_2: Isa::Avx512, 2, ActivationBits::Sixteen, CLAIMS;
    avx512_coarse: Isa::Avx512, 2, ActivationBits::Eight, COARSE;
    avx512_bf16_1: Isa::Avx512Bf16, 1, ActivationBits::Sixteen, CLAIMS;
    avx512_bf16_2: Isa::Avx512Bf16, 2, ActivationBits::Sixteen, CLAIMS;
    avx512_bf16_coarse: Isa::Avx512Bf16, 2, ActivationBits::Eight, COARSE;
}
