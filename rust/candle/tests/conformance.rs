//! The contract on candle, with the weights in f32 and as stored.

#![allow(clippy::unwrap_used)] // tests

use std::process::ExitCode;

use nanovllm_backend::DType;
use nanovllm_backend::conformance::{self, PRODUCT, Promise, QUANTIZED, Subject};
use nanovllm_candle::{CandleBackend, CandleOptions};

fn main() -> ExitCode {
    let dtypes = DType::ALL.iter().copied().filter(|dtype| !dtype.is_integer());
    let oracle = Promise { dtypes: dtypes.collect(), half: PRODUCT, quantized: PRODUCT, rows_are_exact: false };
    let generating = Promise { quantized: QUANTIZED, ..oracle.clone() };
    let subject = |name: &str, oracle, promise| Subject {
        name: name.into(),
        available: true,
        promise,
        open: Box::new(move || CandleBackend::new(CandleOptions { oracle }).unwrap()),
    };
    conformance::main(vec![subject("oracle", true, oracle), subject("generating", false, generating)])
}
