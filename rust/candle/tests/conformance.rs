//! The contract on candle, with the weights in f32 and as stored.

use nanovllm_backend::DType;
use nanovllm_backend::conformance::{Claims, PRODUCT, QUANTIZED};
use nanovllm_candle::{CandleBackend, CandleOptions};

/// Every type candle multiplies with, and of each kind of the others one.
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

fn candle(oracle: bool) -> [CandleBackend; 1] {
    [CandleBackend::new(CandleOptions { oracle })]
}

mod oracle {
    use super::*;
    nanovllm_backend::conformance_tests!(candle(true), Claims { dtypes: DTYPES, half: PRODUCT, quantized: PRODUCT });
}

mod generating {
    use super::*;
    nanovllm_backend::conformance_tests!(candle(false), Claims { dtypes: DTYPES, half: PRODUCT, quantized: QUANTIZED });
}
