//! Tensors of GGUF files to float32 and back, for tools and for tests against other implementations.

use nanovllm_gguf::{Error, GgmlType};
use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Tensor types by ggml's name: its number, elements a block, bytes a block, and whether `quantize` writes it.
#[pyfunction]
pub(crate) fn ggml_types(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let types = PyDict::new(py);
    for &dtype in GgmlType::ALL {
        let row = (dtype as u32, dtype.block_size(), dtype.type_size(), nanovllm_gguf::can_quantize(dtype));
        types.set_item(dtype.name(), row)?;
    }
    Ok(types)
}

/// The float32 values, one-dimensional, of whole blocks of a type.
#[pyfunction]
pub(crate) fn dequantize<'py>(dtype: &str, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (py, dtype) = (data.py(), ggml_type(dtype)?);
    let data = if data.cast::<PyUntypedArray>().is_ok() {
        copied::<u8>(data, "data", "uint8")?
    } else {
        let view = py.import("numpy")?.call_method1("frombuffer", (data, "uint8")).map_err(|error| {
            let scattered = error.is_instance_of::<PyBufferError>(py);
            if scattered { PyValueError::new_err("data must be contiguous") } else { error }
        })?;
        copied::<u8>(&view, "data", "uint8")?
    };
    let values = py.detach(|| {
        // Bytes that are no whole blocks are refused below.
        let elements = (data.len() / dtype.type_size()).saturating_mul(dtype.block_size());
        let mut values = reserved(elements)?;
        values.resize(elements, 0.0);
        nanovllm_gguf::dequantize(dtype, &data, &mut values)?;
        Ok(values)
    });
    Ok(values.map_err(codec_error)?.into_pyarray(py))
}

/// The bytes of whole blocks of a type that hold `values`.
#[pyfunction]
pub(crate) fn quantize<'py>(dtype: &str, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (py, dtype) = (values.py(), ggml_type(dtype)?);
    let values = copied::<f32>(values, "values", "float32")?;
    let blocks = py.detach(|| {
        let mut blocks = Vec::new();
        nanovllm_gguf::quantize(dtype, &values, &mut blocks).map(|()| blocks)
    });
    Ok(blocks.map_err(codec_error)?.into_pyarray(py))
}

fn ggml_type(name: &str) -> PyResult<GgmlType> {
    GgmlType::ALL.iter().copied().find(|dtype| dtype.name() == name).ok_or_else(|| {
        let names: Vec<_> = GgmlType::ALL.iter().map(|dtype| dtype.name()).collect();
        PyValueError::new_err(format!("{name:?} is no tensor type; the types are {}", names.join(", ")))
    })
}

/// A copy of an array's elements, row-major: another thread may write to the array once the GIL is released.
fn copied<T: Element + Copy>(value: &Bound<'_, PyAny>, name: &str, dtype: &str) -> PyResult<Vec<T>> {
    let Ok(array) = value.extract::<PyReadonlyArrayDyn<'_, T>>() else {
        let got = value.cast::<PyUntypedArray>().map_or_else(
            |_| value.get_type().name().map(|name| name.to_string()),
            |array| Ok(format!("an array of {}", array.dtype())),
        )?;
        return Err(PyTypeError::new_err(format!("{name} must be an array of {dtype}, not {got}")));
    };
    let slice = array.as_slice().map_err(|_| PyValueError::new_err(format!("{name} must be contiguous")))?;
    let mut copy = reserved(slice.len()).map_err(codec_error)?;
    copy.extend_from_slice(slice);
    Ok(copy)
}

fn reserved<T>(elements: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    match values.try_reserve_exact(elements) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::OutOfMemory { what: "values".to_owned(), bytes: elements.saturating_mul(size_of::<T>()) }),
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn codec_error(error: Error) -> PyErr {
    match error {
        Error::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}
