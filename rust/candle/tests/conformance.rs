//! The contract on candle, with the weights in f32 and as stored.

use nanovllm_backend::DType;
use nanovllm_backend::conformance::{Claims, PRODUCT, QUANTIZED};
use nanovllm_candle::{CandleBackend, CandleOptions};

const DTYPES: &[DType] = &[DType::F32, DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

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
