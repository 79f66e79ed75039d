//! The options of the CPU device.

use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions, Isa};

use crate::any::{AnyBackend, Owned};
use crate::error::Error;
use crate::options::{Given, OptionSpec, Options};

pub(crate) const OPTIONS: &[OptionSpec] = &[
    // None: as many as the machine offers.
    OptionSpec { name: "num_threads", default: Given::Nothing },
    // None: the best that the machine has.
    OptionSpec { name: "isa", default: Given::Nothing },
    OptionSpec { name: "activation_bits", default: Given::Number(16) },
];

/// Makes the device of its options.
pub(crate) fn open(options: &Options) -> Result<AnyBackend<Owned>, Error> {
    let num_threads = options.number("num_threads")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let isa = options.text("isa")?.map(str::parse).transpose()?;
    let activation_bits = match options.number("activation_bits")? {
        None | Some(16) => ActivationBits::Sixteen,
        Some(8) => ActivationBits::Eight,
        Some(other) => {
            let (field, expected) = ("activation_bits", "8 or 16".to_owned());
            return Err(Error::Option { field, expected, got: other.to_string() });
        }
    };
    Ok(AnyBackend::Cpu(CpuBackend::new(CpuOptions { num_threads, isa, activation_bits })?))
}

/// The instruction sets that there are kernels for, the best last, and whether this machine has each.
pub fn instruction_sets() -> impl Iterator<Item = (&'static str, bool)> {
    Isa::ALL.iter().map(|isa| (isa.name(), isa.is_available()))
}
