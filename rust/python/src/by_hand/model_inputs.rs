//! nano-vLLM's `prepare_*` for any sequences: the engine's own layouts of a step, as numpy arrays of nano-vLLM's types.

use nanovllm_engine::{Sequence, StepInputs};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::by_hand::handle::{PySequence, sync_block_size};
use crate::errors::{engine_error, precondition};

type Ids<'py> = Bound<'py, PyArray1<i64>>;
type Offsets<'py> = Bound<'py, PyArray1<i32>>;
type Tables<'py> = Bound<'py, PyArray2<i32>>;

/// Copies of sequences, for a step of this kind.
pub(crate) fn copies(seqs: &Bound<'_, PyAny>, is_prefill: bool) -> PyResult<Vec<Sequence>> {
    let copy = |seq: PyResult<Bound<'_, PyAny>>| {
        let seq = seq?;
        let seq = seq.cast::<PySequence>()?;
        sync_block_size(seq)?;
        seq.get().read(seq.py(), |seq| seq.copy_for_step(is_prefill))
    };
    seqs.try_iter()?.map(copy).collect()
}

/// `(input_ids, positions, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, slot_mapping, block_tables)` of a
/// prefill step of these sequences; block tables only where some keys are in the cache already.
#[pyfunction]
#[allow(clippy::type_complexity)] // nano-vLLM's context
pub(crate) fn prepare_prefill<'py>(
    seqs: &Bound<'py, PyAny>,
) -> PyResult<(Ids<'py>, Ids<'py>, Offsets<'py>, Offsets<'py>, u32, u32, Offsets<'py>, Option<Tables<'py>>)> {
    let py = seqs.py();
    let inputs = prepare(&copies(seqs, true)?, true)?;
    let input = &inputs.input;
    let num_seqs = input.num_seqs();
    let tables = if inputs.has_prefix_cache() { Some(block_tables(py, &inputs, num_seqs)?) } else { None };
    Ok((
        ids(py, &input.input_ids),
        ids(py, &input.positions),
        offsets(py, input.cu_seqlens_q.iter().map(|&n| n as i32)),
        offsets(py, inputs.cu_seqlens_k().map(|n| n as i32)),
        inputs.max_seqlen_q(),
        inputs.max_seqlen_k(),
        offsets(py, input.slot_mapping.iter().copied()),
        tables,
    ))
}

/// `(input_ids, positions, slot_mapping, context_lens, block_tables)` of a decode step of these sequences.
#[pyfunction]
#[allow(clippy::type_complexity)] // nano-vLLM's context
pub(crate) fn prepare_decode<'py>(
    seqs: &Bound<'py, PyAny>,
) -> PyResult<(Ids<'py>, Ids<'py>, Offsets<'py>, Offsets<'py>, Tables<'py>)> {
    let py = seqs.py();
    let inputs = prepare(&copies(seqs, false)?, false)?;
    let input = &inputs.input;
    Ok((
        ids(py, &input.input_ids),
        ids(py, &input.positions),
        offsets(py, input.slot_mapping.iter().copied()),
        offsets(py, input.context_lens.iter().map(|&n| n as i32)),
        block_tables(py, &inputs, input.num_seqs())?,
    ))
}

/// The block tables of these sequences, padded with -1.
#[pyfunction]
pub(crate) fn prepare_block_tables<'py>(seqs: &Bound<'py, PyAny>) -> PyResult<Tables<'py>> {
    let copies = copies(seqs, false)?;
    if copies.is_empty() {
        return Err(precondition("prepare_block_tables needs at least one sequence"));
    }
    let mut inputs = StepInputs::default();
    inputs.prepare_block_tables_alone(&copies);
    block_tables(seqs.py(), &inputs, copies.len())
}

/// The temperatures of these sequences.
#[pyfunction]
pub(crate) fn prepare_sample<'py>(seqs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let temperature = |seq: PyResult<Bound<'py, PyAny>>| {
        let seq = seq?;
        let seq = seq.cast::<PySequence>()?.get();
        seq.whole("temperature")?;
        seq.read(seqs.py(), |seq| seq.params.temperature as f32)
    };
    let temperatures = seqs.try_iter()?.map(temperature).collect::<PyResult<Vec<_>>>()?;
    Ok(PyArray1::from_vec(seqs.py(), temperatures))
}

/// The batch sizes nano-vLLM captures graphs for, for steps of at most `max_num_seqs` sequences.
#[pyfunction]
pub(crate) fn graph_batch_sizes(max_num_seqs: usize) -> Vec<usize> {
    nanovllm_engine::graph_batch_sizes(max_num_seqs)
}

/// The smallest of the ascending `sizes` that holds a step of `num_seqs` sequences; None if there is none.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 extracts lists by value
pub(crate) fn graph_batch_size(sizes: Vec<usize>, num_seqs: usize) -> Option<usize> {
    nanovllm_engine::graph_batch_size(&sizes, num_seqs)
}

fn prepare(seqs: &[Sequence], is_prefill: bool) -> PyResult<StepInputs> {
    let mut inputs = StepInputs::default();
    inputs.prepare_checked(seqs, is_prefill).map_err(engine_error)?;
    Ok(inputs)
}

fn ids<'py>(py: Python<'py>, values: &[u32]) -> Ids<'py> {
    PyArray1::from_vec(py, values.iter().map(|&id| i64::from(id)).collect())
}

fn offsets(py: Python<'_>, values: impl Iterator<Item = i32>) -> Offsets<'_> {
    PyArray1::from_vec(py, values.collect())
}

fn block_tables<'py>(py: Python<'py>, inputs: &StepInputs, num_seqs: usize) -> PyResult<Tables<'py>> {
    PyArray1::from_slice(py, &inputs.input.block_tables).reshape([num_seqs, inputs.input.table_stride])
}
