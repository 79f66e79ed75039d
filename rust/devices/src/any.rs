//! A backend of whichever device, and the macros that work on it whichever it is.

use nanovllm_backend::{Backend, Inspect, Memory};
#[cfg(feature = "candle")]
use nanovllm_candle::CandleBackend;
use nanovllm_cpu::CpuBackend;
use nanovllm_model::{CausalLm, Checkpoint, LoadError, LoadOptions};

use crate::host_memory::host_memory;

/// How an [`AnyBackend`] holds its backend: as it is ([`Owned`]), or behind something that shares it, which its user
/// defines.
pub trait Holder {
    /// The type that holds a backend of type `B`.
    type Of<B: Inspect>;
}

/// A backend is held as it is.
#[derive(Debug)]
pub struct Owned;

impl Holder for Owned {
    type Of<B: Inspect> = B;
}

/// A backend of one of the devices, held as `H` says. A device is a variant here and an arm in each of the two macros
/// below.
pub enum AnyBackend<H: Holder> {
    /// The device `cpu`.
    Cpu(H::Of<CpuBackend>),
    /// The devices `candle` and `candle-f32`.
    #[cfg(feature = "candle")]
    Candle(H::Of<CandleBackend>),
}

/// Evaluates an expression with a name bound to what an [`AnyBackend`] holds; the expression is compiled for every
/// device. A crate that uses the macro has this crate's features under the same names, as the arms ask for them there.
#[macro_export]
macro_rules! on_backend {
    ($any:expr, $held:ident => $body:expr) => {
        match $any {
            $crate::AnyBackend::Cpu($held) => $body,
            #[cfg(feature = "candle")]
            $crate::AnyBackend::Candle($held) => $body,
        }
    };
}

/// Makes an [`AnyBackend`] of another by an expression that holds the same backend in another way, as [`on_backend`]
/// evaluates it.
#[macro_export]
macro_rules! map_backend {
    ($any:expr, $held:ident => $body:expr) => {
        match $any {
            $crate::AnyBackend::Cpu($held) => $crate::AnyBackend::Cpu($body),
            #[cfg(feature = "candle")]
            $crate::AnyBackend::Candle($held) => $crate::AnyBackend::Candle($body),
        }
    };
}

impl AnyBackend<Owned> {
    /// Loads a model onto the device.
    ///
    /// # Errors
    /// Those of [`nanovllm_model::load`].
    pub fn load(self, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Box<dyn CausalLm>, LoadError> {
        on_backend!(self, backend => nanovllm_model::load(backend, checkpoint, options))
    }

    /// The memory there is for weights and caches: the device's own, else the host's. `None` where neither can tell.
    pub fn memory(&self) -> Option<Memory> {
        on_backend!(self, backend => backend.memory()).or_else(host_memory)
    }
}
