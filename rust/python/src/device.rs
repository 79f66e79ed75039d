//! The devices that layers bound to Python run on: one backend a process for each name, made when first asked for.

use std::sync::{Arc, Mutex, PoisonError};

use nanovllm_backend::Backend;
#[cfg(feature = "candle")]
use nanovllm_candle::{CandleBackend, CandleOptions};
use nanovllm_cpu::{CpuBackend, CpuOptions};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::errors::backend_error;
use crate::guarded::Guarded;

/// A device by name. A new one is a variant here, a line in [`on_device`] and a line in [`Device::named`].
#[derive(Clone)]
pub(crate) enum Device {
    /// "cpu", with every option at its default.
    Cpu(Arc<Guarded<CpuBackend>>),
    /// "candle", and "candle-f32" with every weight widened to f32.
    #[cfg(feature = "candle")]
    Candle(Arc<Guarded<CandleBackend>>),
}

#[cfg(feature = "candle")]
const DEVICES: &str = r#""cpu", "candle" or "candle-f32""#;
#[cfg(not(feature = "candle"))]
const DEVICES: &str = r#""cpu" (this build lacks the feature "candle")"#;

/// Evaluates the expression with the name bound to the device's `&Arc<Guarded<B>>`, whatever its backend `B` is.
macro_rules! on_device {
    ($device:expr, $backend:ident => $body:expr) => {
        match $device {
            $crate::device::Device::Cpu($backend) => $body,
            #[cfg(feature = "candle")]
            $crate::device::Device::Candle($backend) => $body,
        }
    };
}
pub(crate) use on_device;

impl Device {
    /// The process's device of this name.
    ///
    /// # Errors
    /// ValueError for an unknown name; what the backend raises for a machine it cannot run on.
    pub(crate) fn named(name: &str) -> PyResult<Self> {
        static CPU: Slot<CpuBackend> = Slot::empty();
        #[cfg(feature = "candle")]
        static CANDLE: [Slot<CandleBackend>; 2] = [Slot::empty(), Slot::empty()];
        match name {
            "cpu" => CPU.get_or_make(|| CpuBackend::new(CpuOptions::default())).map(Self::Cpu),
            #[cfg(feature = "candle")]
            "candle" | "candle-f32" => {
                let oracle = name == "candle-f32";
                CANDLE[usize::from(oracle)]
                    .get_or_make(|| Ok(CandleBackend::new(CandleOptions { oracle })))
                    .map(Self::Candle)
            }
            _ => Err(PyValueError::new_err(format!("device must be {DEVICES}, got {name:?}"))),
        }
    }
}

/// Copies a matrix out once the operations that make it are done.
///
/// # Errors
/// The first of them that failed.
pub(crate) fn download<B: Backend>(backend: &B, x: &B::Tensor) -> nanovllm_backend::Result<Vec<f32>> {
    backend.synchronize()?;
    Ok(backend.download(x))
}

/// Memory of the device in bytes: all there is, what is taken, and what can still be had. Of the CPU it is what this process
/// may use, which a control group may limit.
#[pyfunction]
#[pyo3(signature = (*, device))]
pub(crate) fn memory(device: &str) -> PyResult<(u64, u64, u64)> {
    // Whichever it is, it lives in this process.
    Device::named(device)?;
    let memory = nanovllm_engine::Memory::detect()
        .ok_or_else(|| PyRuntimeError::new_err("the system does not say how much memory there is"))?;
    Ok((memory.limit, memory.limit - memory.available(), memory.available()))
}

/// Room for the one backend of a name.
struct Slot<B>(Mutex<Option<Arc<Guarded<B>>>>);

impl<B: Backend> Slot<B> {
    const fn empty() -> Self {
        Self(Mutex::new(None))
    }

    fn get_or_make(&self, make: impl FnOnce() -> nanovllm_backend::Result<B>) -> PyResult<Arc<Guarded<B>>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = slot.as_ref().filter(|made| made.is_of_this_process()) {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(Guarded::named("the device", make().map_err(|error| backend_error(&error))?));
        if let Some(parents) = slot.replace(Arc::clone(&made)) {
            // In a forked child: dropping it would wait for threads that only the parent has.
            std::mem::forget(parents);
        }
        Ok(made)
    }
}
