//! The contract on every instruction set, with one thread and with two, with 15-bit and with 8-bit activations.

use std::process::ExitCode;

use nanovllm_backend::conformance::{self, PRODUCT, Promise, QUANTIZED, Subject};
use nanovllm_backend::{Backend, DType};
use nanovllm_cpu::ActivationBits::{Eight, Sixteen};
use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions, Isa};

fn main() -> ExitCode {
    // Every type that weights may have and that keeps its values to the last bit; the suite tries the others as well, once.
    let portable = open(Isa::Scalar, 1, Sixteen);
    let kept = |dtype: &DType| !dtype.is_integer() && portable.stored_as(*dtype, 256) == *dtype;
    let dtypes = DType::ALL.iter().copied().filter(kept);
    // 15-bit activations lose next to nothing, 8-bit ones more.
    let fine = Promise { dtypes: dtypes.collect(), half: PRODUCT, quantized: 1e-7, rows_are_exact: true };
    let coarse = Promise { quantized: QUANTIZED, ..fine.clone() };
    let setups = [("1_thread", 1, Sixteen, &fine), ("2_threads", 2, Sixteen, &fine), ("8_bits", 2, Eight, &coarse)];
    let subjects = Isa::ALL.iter().flat_map(|&isa| {
        setups.map(|(name, num_threads, bits, promise)| Subject {
            name: format!("{isa}::{name}"),
            available: isa.is_available(),
            promise: promise.clone(),
            open: Box::new(move || open(isa, num_threads, bits)),
        })
    });
    conformance::main(subjects.collect())
}

fn open(isa: Isa, num_threads: usize, activation_bits: ActivationBits) -> CpuBackend {
    let options = CpuOptions { num_threads: Some(num_threads), isa: Some(isa), activation_bits };
    CpuBackend::new(options).expect("a set that this machine has")
}
