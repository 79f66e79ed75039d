//! Devices by name: what this machine has, and the backends that modules by hand run on. There is one backend in a process
//! for each name, made when it is first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nanovllm_backend::{Backend, Inspect};
pub(crate) use nanovllm_devices::on_backend as on_device;
use nanovllm_devices::{AnyBackend, Holder, Options, host_memory, map_backend};
use nanovllm_service::Exclusive;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::device_error;
use crate::guarded::Turns;

/// Holds a backend that threads take turns with.
pub(crate) struct Shared;

impl Holder for Shared {
    type Of<B: Inspect> = Arc<Exclusive<B>>;
}

/// A device that layers share.
pub(crate) type Device = AnyBackend<Shared>;

/// The process's device of this name, with every option at its default.
///
/// # Errors
/// ValueError for an unknown name; what the backend raises for a machine it cannot run on.
pub(crate) fn named(name: &str) -> PyResult<Device> {
    static MADE: Mutex<BTreeMap<String, Device>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let share = |device: &Device| map_backend!(device, backend => Arc::clone(backend));
    if let Some(device) = made.get(name)
        && on_device!(device, backend => backend.is_of_this_process())
    {
        return Ok(share(device));
    }
    let owned = nanovllm_devices::open(name, &Options::default()).map_err(|error| device_error(&error))?;
    let device: Device = map_backend!(owned, backend => Arc::new(Exclusive::new("the device", backend)));
    if let Some(parents) = made.insert(name.to_owned(), share(&device)) {
        // In a forked child: dropping it would wait for threads that only the parent has.
        std::mem::forget(parents);
    }
    Ok(device)
}

/// The devices of this build: what `device` may be.
#[pyfunction]
pub(crate) fn device_names() -> Vec<&'static str> {
    nanovllm_devices::names().collect()
}

/// The instruction sets that the CPU device has kernels for, the best last, and whether this machine has each.
#[pyfunction]
pub(crate) fn instruction_sets(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let sets = PyDict::new(py);
    for (name, is_available) in nanovllm_devices::instruction_sets() {
        sets.set_item(name, is_available)?;
    }
    Ok(sets)
}

/// Copies a matrix out once the operations that make it are done.
///
/// # Errors
/// The first of them that failed.
pub(crate) fn download<B: Backend>(backend: &B, x: &B::Tensor) -> nanovllm_backend::Result<Vec<f32>> {
    backend.synchronize()?;
    Ok(backend.download(x))
}

/// Memory of the device in bytes: all there is, what is taken, and what can still be had. Of a device that computes in the
/// host's memory it is what this process may use, which a control group may limit.
#[pyfunction]
#[pyo3(signature = (*, device))]
pub(crate) fn memory(py: Python<'_>, device: &str) -> PyResult<(u64, u64, u64)> {
    let own = on_device!(named(device)?, device => device.with(py, |backend| backend.memory())?);
    let memory = own
        .or_else(host_memory)
        .ok_or_else(|| PyRuntimeError::new_err("the system does not say how much memory there is"))?;
    Ok((memory.limit, memory.limit - memory.available(), memory.available()))
}
