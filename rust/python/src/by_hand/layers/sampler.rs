//! `sample`: one token from each row of logits, and the noise that it draws by.

use nanovllm_backend::{Backend, NoiseStream, SampleRow, Sampled};
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::{count, unsigned};
use crate::by_hand::arrays::{Array, reserved};
use crate::device::{self, on_device};
use crate::errors::backend_error;
use crate::guarded::Turns;

/// One token a row of `logits [n, vocab]`, at the row's temperature, 0 being greedy. Row `i` draws from the random stream
/// (`key`, `position + i`).
#[pyfunction]
#[pyo3(signature = (logits, temperatures, key, position, *, device))]
pub(crate) fn sample<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    temperatures: &Bound<'py, PyAny>,
    key: &Bound<'py, PyAny>,
    position: &Bound<'py, PyAny>,
    device: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let (key, position) = (unsigned(key, "key")?, unsigned(position, "position")?);
    let logits = Array::read(logits, "logits")?;
    logits.expect_shape("logits", &[None, None])?;
    let (rows, vocab) = (logits.rows(), logits.width());
    if vocab == 0 || u32::try_from(vocab).is_err() {
        return Err(PyValueError::new_err(format!("logits must have 1 to 2**32 - 1 columns, got {vocab}")));
    }
    let temperatures = Array::read(temperatures, "temperatures")?;
    temperatures.expect_shape("temperatures", &[Some(rows)])?;
    let mut sample_rows = reserved(rows)?;
    for (i, &temperature) in temperatures.values.iter().enumerate() {
        if !(temperature.is_finite() && temperature >= 0.0) {
            let text = format!("temperatures[{i}] must be finite and not negative, got {temperature}");
            return Err(PyValueError::new_err(text));
        }
        sample_rows.push(SampleRow::drawn(temperature, key, position.wrapping_add(i as u64)));
    }
    let tokens = on_device!(device::named(device)?, device => {
        device.with(py, |backend| choose(backend, &logits.values, vocab, &sample_rows))?
    });
    let tokens = tokens.map_err(|error| backend_error(&error))?;
    logits.kind.integers(py, tokens.into_iter().map(i64::from).collect(), &[rows])
}

fn choose<B: Backend>(
    backend: &B,
    logits: &[f32],
    vocab: usize,
    sample_rows: &[SampleRow<'_>],
) -> nanovllm_backend::Result<Vec<u32>> {
    let mut logits = backend.upload(logits, sample_rows.len(), vocab)?;
    let mut sampled = vec![Sampled::default(); sample_rows.len()];
    backend.sample(&mut logits, sample_rows, &mut sampled);
    backend.synchronize()?;
    Ok(sampled.into_iter().map(|sampled| sampled.token).collect())
}

/// The exponential noise of the tokens `0..n` in the random stream (`key`, `position`), float64: what `sample` draws by.
#[pyfunction]
pub(crate) fn exponential_noise<'py>(
    py: Python<'py>,
    key: &Bound<'py, PyAny>,
    position: &Bound<'py, PyAny>,
    n: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let stream = NoiseStream::new(unsigned(key, "key")?, unsigned(position, "position")?);
    let n = count(n, "n")?;
    let end = u32::try_from(n).map_err(|_| PyValueError::new_err(format!("n must be below 2**32, got {n}")))?;
    let mut noise = reserved(n)?;
    noise.extend((0..end).map(|token| stream.exponential(token)));
    Ok(PyArray1::from_vec(py, noise))
}
