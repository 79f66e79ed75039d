//! `GgufFile` and `SafeTensors`: what a model's files hold, as Python values and numpy arrays.
//!
//! Files are mapped when they are opened and read tensor by tensor; every array is a copy of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nanovllm_gguf::{Array, Value};
use nanovllm_model::{FAMILIES, LoadError, SafeTensorInfo, SafeTensorsFiles};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::exceptions::{PyImportError, PyKeyError, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::errors::{UnsupportedModelError, gguf_error, load_error};

/// The architectures there is code for: what config.json calls each, and what GGUF does.
#[pyfunction]
pub(crate) fn architectures() -> BTreeMap<&'static str, &'static str> {
    FAMILIES.iter().map(|row| (row.hugging_face.class, row.gguf)).collect()
}

/// A tensor's entry in its file.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct TensorInfo {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    nbytes: usize,
}

#[pymethods]
impl TensorInfo {
    /// The name, unique in the model.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The element type as the format writes it: "F32", "Q4_K", "BF16".
    #[getter]
    fn dtype(&self) -> &str {
        &self.dtype
    }

    /// The shape in numpy's order, outermost first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// The size of the stored data in bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.nbytes
    }

    fn __repr__(&self) -> String {
        let Self { name, dtype, shape, nbytes } = self;
        format!("TensorInfo(name={name:?}, dtype={dtype:?}, shape={shape:?}, nbytes={nbytes})")
    }
}

/// A GGUF model, opened for reading.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct GgufFile {
    inner: nanovllm_gguf::GgufFile,
}

#[pymethods]
impl GgufFile {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| nanovllm_gguf::GgufFile::open(&path)).map_err(|e| gguf_error(&e, e.to_string()))?;
        Ok(Self { inner })
    }

    /// The version of the format.
    #[getter]
    fn version(&self) -> u32 {
        self.inner.version()
    }

    /// The metadata in file order, a new dict each time.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (key, value) in self.inner.metadata().iter() {
            dict.set_item(key, python_value(py, value)?)?;
        }
        Ok(dict)
    }

    /// The tensors by name in file order, a new dict each time.
    #[getter]
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let infos = self.inner.tensors().iter().map(|info| TensorInfo {
            name: info.name.clone(),
            dtype: info.dtype.to_string(),
            shape: info.dims.iter().rev().copied().collect(),
            nbytes: info.len,
        });
        by_name(py, infos)
    }

    /// The stored bytes of a tensor.
    fn raw<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let view = self.view(name)?;
        let bytes = py.detach(|| copy(view.data))?;
        self.inner.release(&view);
        Ok(PyArray1::from_vec(py, bytes))
    }

    /// A tensor in float32, dequantised where it is quantised.
    fn tensor<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let view = self.view(name)?;
        let values = py.detach(|| view.to_f32()).map_err(|e| gguf_error(&e, format!("tensor {name:?}: {e}")))?;
        self.inner.release(&view);
        let shape: Vec<usize> = view.dims.iter().rev().copied().collect();
        PyArray1::from_vec(py, values).reshape(shape)
    }

    /// Writes the model as one file of version 3.
    #[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(&path)).map_err(|e| gguf_error(&e, e.to_string()))
    }

    fn __repr__(&self) -> String {
        let (metadata, tensors) = (self.inner.metadata().len(), self.inner.tensors().len());
        format!("GgufFile(version={}, {metadata} metadata keys, {tensors} tensors)", self.inner.version())
    }
}

impl GgufFile {
    /// The tensor called `name`, once its file is known to be whole.
    fn view(&self, name: &str) -> PyResult<nanovllm_gguf::TensorView<'_>> {
        self.inner.check(name).map_err(|e| gguf_error(&e, e.to_string()))?;
        self.inner.tensor(name).ok_or_else(|| no_tensor(name))
    }
}

/// One or more safetensors files, opened for reading.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct SafeTensors {
    inner: SafeTensorsFiles,
}

#[pymethods]
impl SafeTensors {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| SafeTensorsFiles::open(&path)).map_err(|e| load_error(&e))?;
        Ok(Self { inner })
    }

    /// The free-form metadata, a new dict each time.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (key, value) in self.inner.metadata() {
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    /// The tensors by name in file order, a new dict each time.
    #[getter]
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let infos = self.inner.tensors().iter().map(|info| TensorInfo {
            name: info.name.clone(),
            dtype: info.dtype.to_string(),
            shape: info.shape.clone(),
            nbytes: info.len(),
        });
        by_name(py, infos)
    }

    /// The stored bytes of a tensor.
    fn raw<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyArray1<u8>>> {
        self.bytes(py, self.info(name)?)
    }

    /// A tensor in its own type.
    fn tensor<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let info = self.info(name)?;
        let Some(dtype) = numpy_dtype(py, &info.dtype.to_string())? else {
            return Err(UnsupportedModelError::new_err(format!(
                "tensor {name:?}: numpy has no type of less than a byte for {}; raw() gives the bytes",
                info.dtype
            )));
        };
        let shape = PyTuple::new(py, &info.shape)?;
        self.bytes(py, info)?.call_method1("view", (dtype,))?.call_method1("reshape", (shape,))
    }

    fn __repr__(&self) -> String {
        format!("SafeTensors({} tensors)", self.inner.tensors().len())
    }
}

impl SafeTensors {
    fn info(&self, name: &str) -> PyResult<&SafeTensorInfo> {
        self.inner.info(name).ok_or_else(|| no_tensor(name))
    }

    fn bytes<'py>(&self, py: Python<'py>, info: &SafeTensorInfo) -> PyResult<Bound<'py, PyArray1<u8>>> {
        self.inner.check(info).map_err(|e: LoadError| load_error(&e))?;
        let bytes = py.detach(|| copy(self.inner.data(info)))?;
        self.inner.release(info);
        Ok(PyArray1::from_vec(py, bytes))
    }
}

fn no_tensor(name: &str) -> PyErr {
    PyKeyError::new_err(format!("no tensor named {name:?}"))
}

fn copy(bytes: &[u8]) -> PyResult<Vec<u8>> {
    let mut out = Vec::new();
    out.try_reserve_exact(bytes.len())
        .map_err(|_| PyMemoryError::new_err(format!("cannot allocate {} bytes for a tensor", bytes.len())))?;
    out.extend_from_slice(bytes);
    Ok(out)
}

fn by_name(py: Python<'_>, infos: impl Iterator<Item = TensorInfo>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for info in infos {
        dict.set_item(info.name.clone(), info)?;
    }
    Ok(dict)
}

fn python_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::U8(v) => v.into_pyobject(py)?.into_any(),
        Value::I8(v) => v.into_pyobject(py)?.into_any(),
        Value::U16(v) => v.into_pyobject(py)?.into_any(),
        Value::I16(v) => v.into_pyobject(py)?.into_any(),
        Value::U32(v) => v.into_pyobject(py)?.into_any(),
        Value::I32(v) => v.into_pyobject(py)?.into_any(),
        Value::F32(v) => v.into_pyobject(py)?.into_any(),
        Value::Bool(v) => v.into_pyobject(py)?.to_owned().into_any(),
        Value::String(v) => v.into_pyobject(py)?.into_any(),
        Value::Array(v) => python_list(py, v)?.into_any(),
        Value::U64(v) => v.into_pyobject(py)?.into_any(),
        Value::I64(v) => v.into_pyobject(py)?.into_any(),
        Value::F64(v) => v.into_pyobject(py)?.into_any(),
    })
}

fn python_list<'py>(py: Python<'py>, array: &Array) -> PyResult<Bound<'py, PyList>> {
    match array {
        Array::U8(v) => PyList::new(py, v),
        Array::I8(v) => PyList::new(py, v),
        Array::U16(v) => PyList::new(py, v),
        Array::I16(v) => PyList::new(py, v),
        Array::U32(v) => PyList::new(py, v),
        Array::I32(v) => PyList::new(py, v),
        Array::F32(v) => PyList::new(py, v),
        Array::Bool(v) => PyList::new(py, v),
        Array::String(v) => PyList::new(py, v),
        Array::U64(v) => PyList::new(py, v),
        Array::I64(v) => PyList::new(py, v),
        Array::F64(v) => PyList::new(py, v),
    }
}

/// The numpy type of a safetensors type. A type that only ml_dtypes has is read as its bits where that is not installed; one
/// whose elements are less than a byte has none.
fn numpy_dtype<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (ml_dtype, plain) = match name {
        "BOOL" => ("", "?"),
        "U8" => ("", "u1"),
        "I8" => ("", "i1"),
        "U16" => ("", "<u2"),
        "I16" => ("", "<i2"),
        "U32" => ("", "<u4"),
        "I32" => ("", "<i4"),
        "U64" => ("", "<u8"),
        "I64" => ("", "<i8"),
        "F16" => ("", "<f2"),
        "F32" => ("", "<f4"),
        "F64" => ("", "<f8"),
        "C64" => ("", "<c8"),
        "BF16" => ("bfloat16", "<u2"),
        "F8_E4M3" => ("float8_e4m3fn", "u1"),
        "F8_E5M2" => ("float8_e5m2", "u1"),
        "F8_E8M0" => ("float8_e8m0fnu", "u1"),
        "F8_E4M3FNUZ" => ("float8_e4m3fnuz", "u1"),
        "F8_E5M2FNUZ" => ("float8_e5m2fnuz", "u1"),
        _ => return Ok(None),
    };
    if !ml_dtype.is_empty() {
        match py.import("ml_dtypes") {
            Ok(module) => {
                if let Some(dtype) = module.getattr_opt(ml_dtype)? {
                    return Ok(Some(dtype)); // older releases lack the newest types
                }
            }
            Err(error) if error.is_instance_of::<PyImportError>(py) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(plain.into_pyobject(py)?.into_any()))
}
