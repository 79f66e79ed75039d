//! `Parameter`: a weight or bias of a module, kept as it was loaded and packed for the device when it is first used.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nanovllm_backend::{Backend, DType};
use nanovllm_model::{ParameterError, ShardError, Sharding, StoredTensor, TpRank};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arguments::count;
use crate::by_hand::arrays::Array;
use crate::errors::backend_error;

/// One rank's parameter: a matrix `[outputs, inputs]` or a vector `[outputs]`, made of one or more stored tensors.
#[pyclass(frozen, subclass, module = "nanovllm._core")]
pub(crate) struct Parameter {
    state: Mutex<State>,
}

struct State {
    stored: nanovllm_model::Parameter<'static>,
    packed: Option<Packed>,
}

/// The parameter in the layout of the device it was last used on.
struct Packed {
    device: String,
    /// An `Arc` of the device's weight or tensor type.
    value: Arc<dyn Any + Send + Sync>,
}

#[pymethods]
impl Parameter {
    /// `outputs` are the sizes of the tensors it stacks and `inputs` their columns (None for vectors), both over all ranks.
    /// `tp_dim` 0 splits outputs, 1 inputs (of a matrix; a vector is then whole on every rank), None nothing.
    #[new]
    #[pyo3(signature = (outputs, inputs, *, tp_dim, tp_rank, tp_size))]
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands sequences and optional arguments over by value
    fn new(
        outputs: Vec<Bound<'_, PyAny>>,
        inputs: Option<Bound<'_, PyAny>>,
        tp_dim: Option<u64>,
        tp_rank: &Bound<'_, PyAny>,
        tp_size: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let outputs = outputs.iter().map(|n| count(n, "output_size")).collect::<PyResult<Vec<_>>>()?;
        let inputs = inputs.map(|n| count(&n, "input_size")).transpose()?;
        let tp = tp(tp_rank, tp_size)?;
        let sharding = match (tp_dim, inputs, outputs.as_slice()) {
            (Some(0), ..) => Sharding::by_rows(&outputs, inputs, tp),
            (Some(1), Some(inputs), &[rows]) => Sharding::by_cols(rows, inputs, tp),
            (None | Some(1), ..) => Sharding::by_rows(&outputs, inputs, TpRank::SINGLE),
            (Some(other), ..) => {
                return Err(PyValueError::new_err(format!("tp_dim must be 0, 1 or None, got {other}")));
            }
        };
        let stored = nanovllm_model::Parameter::new(sharding.map_err(|e| shard_error(&e))?);
        Ok(Self { state: Mutex::new(State { stored, packed: None }) })
    }

    /// Copies in this rank's part of the whole stored tensor `shard`.
    fn load(&self, loaded: &Bound<'_, PyAny>, shard: &Bound<'_, PyAny>) -> PyResult<()> {
        let (tensor, shard) = (stored_tensor(loaded)?, count(shard, "loaded_shard_id")?);
        let mut state = self.state();
        state.packed = None;
        state.stored.load(shard, tensor).map_err(|e| parameter_error(&e))
    }

    /// The rank's own shape.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.state().stored.sharding().shape())
    }

    /// Numbers of the tensors it is made of that were not loaded.
    #[getter]
    fn unloaded(&self) -> Vec<usize> {
        self.state().stored.unloaded().collect()
    }

    /// A read-only copy of all elements, in the type they were loaded in (float32 where types differ); zeros where nothing
    /// was loaded. bfloat16 is ml_dtypes', and float32 where that is not installed.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (values, shape, dtype) = py
            .detach(|| {
                let state = self.state();
                state.stored.to_f32().map(|values| (values, state.stored.sharding().shape(), state.stored.dtype()))
            })
            .map_err(|e| parameter_error(&e))?;
        let array = floats(py, values, &shape, dtype.unwrap_or(DType::F32))?;
        array.getattr("flags")?.setattr("writeable", false)?;
        Ok(array)
    }

    /// Replaces all elements by a copy of an array of the rank's own shape.
    #[setter]
    fn set_data(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let tensor = stored_tensor(data)?;
        let mut state = self.state();
        state.packed = None;
        state.stored.set(&tensor).map_err(|e| parameter_error(&e))
    }
}

impl Parameter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The element type it was loaded in, which is also that of rows looked up in it.
    pub(crate) fn dtype(&self) -> DType {
        self.state().stored.dtype().unwrap_or(DType::F32)
    }

    /// Numbers of outputs and of inputs of the rank; a vector has one input.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.state();
        let sharding = state.stored.sharding();
        (sharding.rows(), sharding.cols())
    }

    /// The matrix in the device's layout, packed if it changed since it was last used or was used elsewhere.
    pub(crate) fn packed<B: Backend>(&self, backend: &B) -> Result<Arc<B::Weight>, ParameterError> {
        self.cached(backend.describe(), |stored| stored.pack(backend))
    }

    /// The vector as the device's tensor, uploaded if it changed since it was last used or was used elsewhere.
    pub(crate) fn uploaded<B: Backend>(&self, backend: &B) -> Result<Arc<B::Tensor>, ParameterError> {
        self.cached(backend.describe(), |stored| stored.upload(backend))
    }

    fn cached<T: Any + Send + Sync>(
        &self,
        device: String,
        make: impl FnOnce(&nanovllm_model::Parameter<'static>) -> Result<Arc<T>, ParameterError>,
    ) -> Result<Arc<T>, ParameterError> {
        let mut state = self.state();
        let cached = state.packed.as_ref().filter(|packed| packed.device == device);
        if let Some(value) = cached.and_then(|packed| Arc::clone(&packed.value).downcast().ok()) {
            return Ok(value);
        }
        let value = make(&state.stored)?;
        state.packed = Some(Packed { device, value: Arc::clone(&value) as Arc<dyn Any + Send + Sync> });
        Ok(value)
    }
}

/// `numerator / denominator`, which must be exact.
#[pyfunction]
pub(crate) fn divide(numerator: &Bound<'_, PyAny>, denominator: &Bound<'_, PyAny>) -> PyResult<usize> {
    let (numerator, denominator) = (count(numerator, "numerator")?, count(denominator, "denominator")?);
    nanovllm_model::divide(numerator, denominator).map_err(|e| shard_error(&e))
}

/// Values, row-major, as a numpy array of `dtype`, if numpy has it, else of float32.
pub(crate) fn floats<'py>(
    py: Python<'py>,
    values: Vec<f32>,
    shape: &[usize],
    dtype: DType,
) -> PyResult<Bound<'py, PyAny>> {
    let array = PyArray1::from_vec(py, values).reshape(shape.to_vec())?.into_any();
    match dtype {
        DType::F16 => array.call_method1("astype", ("float16",)),
        DType::Bf16 => match py.import("ml_dtypes") {
            Ok(types) => array.call_method1("astype", (types.getattr("bfloat16")?,)),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyImportError>(py) => Ok(array),
            Err(error) => Err(error),
        },
        _ => Ok(array),
    }
}

/// ValueError for what cannot be packed or loaded; what the device raises otherwise.
pub(crate) fn parameter_error(error: &ParameterError) -> PyErr {
    match error {
        ParameterError::Backend(error) => backend_error(error),
        error => PyValueError::new_err(error.to_string()),
    }
}

fn shard_error(error: &ShardError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn tp(rank: &Bound<'_, PyAny>, size: &Bound<'_, PyAny>) -> PyResult<TpRank> {
    TpRank::new(count(rank, "tp_rank")?, count(size, "tp_size")?).map_err(|e| shard_error(&e))
}

/// An array as a tensor of its own type: widening to f32 and back is exact.
fn stored_tensor(loaded: &Bound<'_, PyAny>) -> PyResult<StoredTensor<'static>> {
    let array = Array::read(loaded, "loaded_weight")?;
    let name = loaded.getattr("dtype")?.str()?.to_string();
    let dtype = match name.strip_prefix("torch.").unwrap_or(&name) {
        "float16" => DType::F16,
        "bfloat16" => DType::Bf16,
        "float32" => DType::F32,
        other => return Err(PyTypeError::new_err(format!("loaded_weight must not be {other}"))),
    };
    let mut data = Vec::new();
    nanovllm_gguf::quantize(dtype, &array.values, &mut data).map_err(|e| PyValueError::new_err(e.to_string()))?;
    Ok(StoredTensor { name: "loaded_weight", dtype, shape: array.shape, data: Cow::Owned(data) })
}
