//! Arrays across the boundary: numpy arrays and torch tensors of three floating-point types, to f32 and back.
//!
//! Everything is computed in f32. A result is rounded once, to the type of the argument it answers, and comes from the same
//! library. The libraries themselves convert: float16 and bfloat16 (numpy's through `ml_dtypes`) widen to float32 exactly,
//! so nothing here knows their bits. torch is imported only where an argument already is one of its tensors.

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Floating-point values with their shape.
pub(crate) struct Array {
    /// Row-major.
    pub(crate) values: Vec<f32>,
    /// Outermost first; 1 to 4 of them.
    pub(crate) shape: Vec<usize>,
    /// What a result that answers it must be.
    pub(crate) kind: Kind,
}

/// The library and the element type of an argument.
pub(crate) struct Kind {
    like: Py<PyAny>,
    is_torch: bool,
    is_bf16: bool,
}

impl Array {
    /// Copies an array or tensor in, whatever its strides. Errors call it `name`.
    ///
    /// # Errors
    /// TypeError unless it is a numpy array or a torch tensor of float32, float16 or bfloat16; ValueError unless it has 1
    /// to 4 dimensions; MemoryError.
    pub(crate) fn read(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let kind = Kind::of(value, name)?;
        let numpy = to_numpy(value, kind.is_torch)?;
        let shape = numpy.shape().to_vec();
        let dimensions = value.getattr("ndim")?.extract::<usize>()?;
        if !(1..=4).contains(&dimensions) {
            return Err(PyValueError::new_err(format!("{name} must have 1 to 4 dimensions, got {dimensions}")));
        }
        let numpy = numpy.try_readonly()?;
        let from = numpy.as_slice()?;
        let mut values = reserved(from.len())?;
        values.extend_from_slice(from);
        Ok(Self { values, shape, kind })
    }

    /// As [`read`](Self::read), of `value[indices]`; indices of the first dimension are in range.
    pub(crate) fn read_indexed(value: &Bound<'_, PyAny>, name: &str, indices: &[i64]) -> PyResult<Self> {
        let indices = Kind::of(value, name)?.integers(value.py(), indices.to_vec(), &[indices.len()])?;
        Self::read(&value.get_item(indices)?, name)
    }

    /// The size of the last dimension.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// The number of rows, a row being what the last dimension runs over.
    pub(crate) fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The values repeated to `shape` by numpy's rule: dimensions are matched from the last, and one of size 1 repeats.
    /// Errors call the array `name`.
    ///
    /// # Errors
    /// ValueError where they do not match; MemoryError.
    pub(crate) fn broadcast(&self, name: &str, shape: &[usize]) -> PyResult<Vec<f32>> {
        let matches = |(&own, &wanted): (&usize, &usize)| own == wanted || own == 1;
        if self.shape.len() > shape.len() || !self.shape.iter().rev().zip(shape.iter().rev()).all(matches) {
            let own = &self.shape;
            return Err(PyValueError::new_err(format!("{name} of shape {own:?} does not broadcast to {shape:?}")));
        }
        let len = shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n)).unwrap_or(usize::MAX);
        let mut out = reserved(len)?;
        for mut i in 0..len {
            let (mut at, mut stride) = (0, 1);
            for (&own, &wanted) in self.shape.iter().rev().zip(shape.iter().rev()) {
                at += if own == 1 { 0 } else { i % wanted * stride };
                (i, stride) = (i / wanted, stride * own);
            }
            out.push(self.values[at]);
        }
        Ok(out)
    }

    /// Checks the number of dimensions and the sizes of those that are given.
    ///
    /// # Errors
    /// ValueError that names the array and both shapes.
    pub(crate) fn expect_shape(&self, name: &str, expected: &[Option<usize>]) -> PyResult<()> {
        let agrees = |(&got, &expected): (&usize, &Option<usize>)| expected.is_none_or(|n| n == got);
        if self.shape.len() == expected.len() && self.shape.iter().zip(expected).all(agrees) {
            return Ok(());
        }
        let sizes = expected.iter().map(|n| n.map_or_else(|| "any".to_owned(), |n| n.to_string()));
        let sizes = sizes.collect::<Vec<_>>().join(", ");
        Err(PyValueError::new_err(format!("{name} must have shape [{sizes}], got {:?}", self.shape)))
    }
}

impl Kind {
    /// The kind of an array or tensor. Errors call it `name`.
    ///
    /// # Errors
    /// TypeError unless it is a numpy array or a torch tensor of float32, float16 or bfloat16.
    pub(crate) fn of(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let is_torch = is_tensor(value)?;
        if !is_torch && !value.is_instance_of::<PyUntypedArray>() {
            let type_name = value.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "{name} must be a numpy array or a torch tensor, not {type_name}"
            )));
        }
        // "float32" of numpy and ml_dtypes, "torch.float32" of torch.
        let dtype = value.getattr("dtype")?.str()?.to_string();
        let dtype = dtype.strip_prefix("torch.").unwrap_or(&dtype);
        if !["float32", "float16", "bfloat16"].contains(&dtype) {
            return Err(PyTypeError::new_err(format!("{name} must be float32, float16 or bfloat16, got {dtype}")));
        }
        Ok(Self { like: value.clone().unbind(), is_torch, is_bf16: dtype == "bfloat16" })
    }

    /// Whether the elements are bfloat16.
    pub(crate) fn is_bf16(&self) -> bool {
        self.is_bf16
    }

    /// Values, row-major, as an array of this kind.
    pub(crate) fn floats<'py>(
        &self,
        py: Python<'py>,
        values: Vec<f32>,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = PyArray1::from_vec(py, values).call_method1("reshape", (shape.to_vec(),))?;
        let like = self.like.bind(py);
        if self.is_torch {
            py.import("torch")?.call_method1("from_numpy", (array,))?.call_method1("to", (like,))
        } else {
            array.call_method1("astype", (like.getattr("dtype")?,))
        }
    }

    /// Integers, row-major, as an int64 array of the same library.
    pub(crate) fn integers<'py>(
        &self,
        py: Python<'py>,
        values: Vec<i64>,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = PyArray1::from_vec(py, values).call_method1("reshape", (shape.to_vec(),))?;
        if self.is_torch { py.import("torch")?.call_method1("from_numpy", (array,)) } else { Ok(array) }
    }
}

/// Integers with their shape.
pub(crate) struct Integers<T> {
    /// Row-major.
    pub(crate) values: Vec<T>,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
}

impl<T: TryFrom<i64>> Integers<T> {
    /// Copies in a numpy array, a torch tensor or a list of `dimensions` dimensions. Errors call it `name` and say that its
    /// elements must be `range`.
    ///
    /// # Errors
    /// TypeError unless it holds integers; ValueError for another number of dimensions or an element that is no `T`.
    pub(crate) fn read(value: &Bound<'_, PyAny>, name: &str, dimensions: usize, range: &str) -> PyResult<Self> {
        let py = value.py();
        let numpy = py.import("numpy")?;
        let array =
            if is_tensor(value)? { value.call_method0("detach")?.call_method0("numpy")? } else { value.clone() };
        let array = numpy.call_method1("asarray", (array,))?;
        let (kind, size) = (array.getattr("dtype")?.getattr("kind")?, array.getattr("dtype")?.getattr("itemsize")?);
        let (kind, size) = (kind.extract::<char>()?, size.extract::<usize>()?);
        let empty = array.getattr("size")?.extract::<usize>()? == 0; // an empty list has numpy's default type
        if !empty && (!matches!(kind, 'i' | 'u') || (kind, size) == ('u', size_of::<u64>())) {
            let dtype = array.getattr("dtype")?;
            return Err(PyTypeError::new_err(format!("{name} must be integers that fit int64, got {dtype}")));
        }
        let array = numpy.call_method1("ascontiguousarray", (array, "int64"))?.cast_into::<PyArrayDyn<i64>>()?;
        let shape = array.shape().to_vec();
        if shape.len() != dimensions {
            let got = shape.len();
            return Err(PyValueError::new_err(format!("{name} must have {dimensions} dimensions, got {got}")));
        }
        let array = array.try_readonly()?;
        let mut values = reserved(array.as_slice()?.len())?;
        for (i, &value) in array.as_slice()?.iter().enumerate() {
            let error = || PyValueError::new_err(format!("{name} must be {range}, got {value} at index {i}"));
            values.push(T::try_from(value).map_err(|_| error())?);
        }
        Ok(Self { values, shape })
    }
}

/// The shape of an array or tensor. Errors call it `name`.
///
/// # Errors
/// TypeError where it has none.
pub(crate) fn shape_of(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<usize>> {
    Kind::of(value, name)?;
    value.getattr("shape")?.extract()
}

/// Writes rows into the caller's own array or tensor: `target[i[0], i[1]] = row` for each `row`, `[indices, ...]`, and its
/// pair of indices, which are in range. Values are rounded to the target's type. Errors call it `name`.
///
/// # Errors
/// Whatever the library raises, for one where the memory is read-only.
pub(crate) fn scatter(
    target: &Bound<'_, PyAny>,
    name: &str,
    indices: [Vec<i64>; 2],
    rows: Vec<f32>,
    row_shape: &[usize],
) -> PyResult<()> {
    let (py, kind, count) = (target.py(), Kind::of(target, name)?, indices[0].len());
    let rows = kind.floats(py, rows, &[&[count], row_shape].concat())?;
    let [first, second] = indices.map(|index| kind.integers(py, index, &[count]));
    let target = if kind.is_torch { target.call_method0("detach")? } else { target.clone() };
    target.set_item((first?, second?), rows)
}

/// An empty vector with room for `len` values.
///
/// # Errors
/// MemoryError.
pub(crate) fn reserved<T>(len: usize) -> PyResult<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|e| PyMemoryError::new_err(format!("{len} values: {e}")))?;
    Ok(values)
}

/// Whether it is a torch tensor, by what it can do.
pub(crate) fn is_tensor(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    for method in ["detach", "cpu", "numpy"] {
        if !value.hasattr(method)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The values as float32, contiguous.
fn to_numpy<'py>(value: &Bound<'py, PyAny>, is_torch: bool) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let mut value = value.clone();
    if is_torch {
        for method in ["detach", "cpu", "float", "numpy"] {
            value = value.call_method0(method)?;
        }
    }
    let numpy = value.py().import("numpy")?;
    Ok(numpy.call_method1("ascontiguousarray", (value, "float32"))?.cast_into()?)
}
