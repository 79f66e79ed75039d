//! Qwen3's modules for Python. A module's parts are read off its attributes at each call, so that whatever is put in their
//! place is used; parameters stay packed from call to call.

use nanovllm_backend::{Backend, DType, Inspect};
use nanovllm_model::decoder::{AttentionBuffers, Buffers, DecoderLayer, FeedForward, MlpBuffers};
use nanovllm_model::{ParameterError, Slice};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::{Array, Integers, is_tensor};
use crate::by_hand::layers::embed_head::{answer, token_ids};
use crate::by_hand::layers::parameter::parameter_error;
use crate::by_hand::models::faces::{AttentionFace, LayerFace, MlpFace, ModelFace};
use crate::by_hand::models::forward_pass::{CacheContents, CacheFace, ForwardPass, Stores};
use crate::device::{self, Device, on_device};
use crate::guarded::Turns;

/// Runs Qwen3's modules on a device.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Qwen3 {
    device: Device,
}

#[pymethods]
impl Qwen3 {
    #[new]
    #[pyo3(signature = (*, device))]
    fn new(device: &str) -> PyResult<Self> {
        Ok(Self { device: device::named(device)? })
    }

    /// Self-attention of a `Qwen3Attention`, `[rows, hidden] -> [rows, hidden]`.
    fn attention<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        hidden_states: &Bound<'py, PyAny>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let face: AttentionFace = module.extract()?;
        let x = rows_of(hidden_states, "hidden_states")?;
        face.check(x.width())?;
        let positions = read_positions(positions, x.rows(), face.max_position())?;
        let layers = [&face.attn];
        let (pass, stores) =
            ForwardPass::new(py, &context.extract()?, &layers, face.heads(), x.rows(), activations(&x))?;
        let run = on_device!(&self.device, device => {
            device.with(py, |backend| attention(backend, &face, &pass, &stores, &positions, &x))?
        });
        let (out, stored) = run.map_err(|e| parameter_error(&e))?;
        stores.write(py, &layers, stored, face.heads())?;
        x.kind.floats(py, out, &x.shape)
    }

    /// The gated feed-forward of a `Qwen3MLP`, `[rows, hidden] -> [rows, hidden]`.
    fn mlp<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        x: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let face: MlpFace = module.extract()?;
        let x = rows_of(x, "x")?;
        face.check(x.width())?;
        let run = on_device!(&self.device, device => device.with(py, |backend| mlp(backend, &face, &x))?);
        x.kind.floats(py, run.map_err(|e| parameter_error(&e))?, &x.shape)
    }

    /// A `Qwen3DecoderLayer`: what its MLP gives and the residual stream, each `[rows, hidden]`. The first layer has no
    /// residual.
    #[pyo3(signature = (module, positions, hidden_states, residual, context))]
    fn decoder_layer<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        hidden_states: &Bound<'py, PyAny>,
        residual: Option<&Bound<'py, PyAny>>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let face: LayerFace = module.extract()?;
        let x = rows_of(hidden_states, "hidden_states")?;
        let residual = residual.map(|residual| rows_of(residual, "residual")).transpose()?;
        if let Some(residual) = &residual {
            residual.expect_shape("residual", &[Some(x.rows()), Some(x.width())])?;
        }
        face.check(x.width())?;
        let attn = &face.self_attn;
        let positions = read_positions(positions, x.rows(), attn.max_position())?;
        let layers = [&attn.attn];
        let (pass, stores) =
            ForwardPass::new(py, &context.extract()?, &layers, attn.heads(), x.rows(), activations(&x))?;
        let run = on_device!(&self.device, device => device.with(py, |backend| {
            decoder_layer(backend, &face, &pass, &stores, &positions, &x, residual.as_ref())
        })?);
        let ([hidden, residual], stored) = run.map_err(|e| parameter_error(&e))?;
        stores.write(py, &layers, stored, attn.heads())?;
        Ok((x.kind.floats(py, hidden, &x.shape)?, x.kind.floats(py, residual, &x.shape)?))
    }

    /// A `Qwen3Model`: normed hidden states of the tokens, `[rows] -> [rows, hidden]`, in the embedding's type.
    fn model<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        input_ids: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let face: ModelFace = module.extract()?;
        face.check()?;
        let ((vocab_size, hidden_size), dtype) = (face.embedding().size(), face.embedding().dtype());
        let is_torch = is_tensor(input_ids)?;
        let input_ids = token_ids(input_ids, vocab_size)?;
        let rows = input_ids.len();
        let attn = &face.first()?.self_attn;
        let positions = read_positions(positions, rows, attn.max_position())?;
        let layers: Vec<&CacheFace> = face.layers.iter().map(|layer| &layer.self_attn.attn).collect();
        let kept = if dtype == DType::Bf16 { DType::Bf16 } else { DType::F32 };
        let (pass, stores) = ForwardPass::new(py, &context.extract()?, &layers, attn.heads(), rows, kept)?;
        let run = on_device!(&self.device, device => {
            device.with(py, |backend| model(backend, &face, &pass, &stores, &input_ids, &positions))?
        });
        let (out, stored) = run.map_err(|e| parameter_error(&e))?;
        stores.write(py, &layers, stored, attn.heads())?;
        answer(py, out, &[rows, hidden_size], dtype, is_torch)
    }
}

/// `[rows, width]`.
fn rows_of(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Array> {
    let array = Array::read(value, name)?;
    array.expect_shape(name, &[None, None])?;
    Ok(array)
}

/// What keys and values are kept in where the caller has no cache.
fn activations(x: &Array) -> DType {
    if x.kind.is_bf16() { DType::Bf16 } else { DType::F32 }
}

fn read_positions(value: &Bound<'_, PyAny>, rows: usize, max_position: usize) -> PyResult<Vec<u32>> {
    let positions = Integers::<u32>::read(value, "positions", 1, "positions in a sequence")?.values;
    if positions.len() != rows {
        let text = format!("positions has {} entries for {rows} rows", positions.len());
        return Err(PyValueError::new_err(text));
    }
    if let Some((i, position)) = positions.iter().enumerate().find(|&(_, &p)| p as usize >= max_position) {
        let text = format!("positions[{i}] is {position}, the rotary table ends before {max_position}");
        return Err(PyValueError::new_err(text));
    }
    Ok(positions)
}

fn attention<B: Inspect>(
    backend: &B,
    face: &AttentionFace,
    pass: &ForwardPass,
    stores: &Stores,
    positions: &[u32],
    x: &Array,
) -> Result<(Vec<f32>, CacheContents), ParameterError> {
    let (layer, mut cache) = (face.bind(backend, 0)?, pass.cache(backend)?);
    let mut buffers = AttentionBuffers::new(backend, face.heads().qkv_size(), face.heads().q_size(), x.rows())?;
    let mut out = backend.tensor(x.rows(), x.width())?;
    let slice = Slice { input_ids: &[], positions, context: pass.context() };
    let x = backend.upload(&x.values, x.rows(), x.width())?;
    layer.forward(backend, &x, std::slice::from_ref(face.rotary()?), &slice, &mut cache, &mut buffers, &mut out);
    Ok((backend.download(&out), pass.stored(backend, &cache, stores)))
}

fn mlp<B: Backend>(backend: &B, face: &MlpFace, x: &Array) -> Result<Vec<f32>, ParameterError> {
    let layer = face.bind(backend)?;
    let mut buffers = MlpBuffers::new(backend, layer.sizes(), x.rows())?;
    let mut out = backend.tensor(x.rows(), x.width())?;
    layer.forward(backend, &backend.upload(&x.values, x.rows(), x.width())?, &mut buffers, &mut out);
    Ok(backend.download(&out))
}

fn decoder_layer<B: Inspect>(
    backend: &B,
    face: &LayerFace,
    pass: &ForwardPass,
    stores: &Stores,
    positions: &[u32],
    x: &Array,
    residual: Option<&Array>,
) -> Result<([Vec<f32>; 2], CacheContents), ParameterError> {
    let (layer, mut cache) = (face.bind(backend, 0)?, pass.cache(backend)?);
    let (rows, width) = (x.rows(), x.width());
    let mut buffers = Buffers::new(backend, width, &[layer.sizes()], rows)?;
    let x = backend.upload(&x.values, rows, width)?;
    match residual {
        Some(residual) => {
            buffers.hidden = x;
            buffers.residual = backend.upload(&residual.values, rows, width)?;
        }
        None => buffers.residual = x,
    }
    let slice = Slice { input_ids: &[], positions, context: pass.context() };
    let rotary = std::slice::from_ref(face.self_attn.rotary()?);
    layer.forward(backend, residual.is_none(), rotary, &slice, &mut cache, &mut buffers);
    let out = [backend.download(&buffers.hidden), backend.download(&buffers.residual)];
    Ok((out, pass.stored(backend, &cache, stores)))
}

fn model<B: Inspect>(
    backend: &B,
    face: &ModelFace,
    pass: &ForwardPass,
    stores: &Stores,
    input_ids: &[u32],
    positions: &[u32],
) -> Result<(Vec<f32>, CacheContents), ParameterError> {
    let (model, mut cache) = (face.bind(backend)?, pass.cache(backend)?);
    let (rows, hidden_size) = (input_ids.len(), face.embedding().size().1);
    let Some(first) = face.layers.first() else { return Ok((Vec::new(), Vec::new())) };
    let sizes: Vec<_> = model.layers.iter().map(DecoderLayer::sizes).collect();
    let mut buffers = Buffers::new(backend, hidden_size, &sizes, rows)?;
    let slice = Slice { input_ids, positions, context: pass.context() };
    model.forward(backend, std::slice::from_ref(first.self_attn.rotary()?), &slice, &mut cache, &mut buffers);
    let mut out = backend.tensor(rows, hidden_size)?;
    model.norm.add_forward(backend, &buffers.hidden, &mut buffers.residual, &mut out);
    Ok((backend.download(&out), pass.stored(backend, &cache, stores)))
}
