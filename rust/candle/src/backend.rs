//! The device: candle as a backend.

use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{Device, Tensor};
use nanovllm_backend::{
    Activation, AttentionOptions, Backend, BlockCopy, Context, DType, Error, ExpertRoom, Experts, HeadLayout,
    HeadNorms, Inspect, KvCacheSpec, Result, Rope, Routing, SampleRow, Sampled, Scale, WeightPart,
};

use crate::error::{NAME, device_error};
use crate::kv_cache::KvCache;
use crate::matrix::Matrix;
use crate::memory::{probe, tensor, zeroed_vec, zeros};
use crate::weight::{self, Weight};
use crate::{attention, experts, rows, store};

/// How to set up the device.
#[derive(Debug, Clone, Copy, Default)]
pub struct CandleOptions {
    /// Whether every weight is widened to f32. Otherwise quantised weights keep their blocks where candle has the type,
    /// and candle rounds their inputs to 8 bits: a fraction of the memory, but not what to compare another device with.
    pub oracle: bool,
}

/// The process that candle's pools were started in. Their threads start with the first operation that is worth it; which one
/// that is candle does not say, so it is the first of all here.
static THREADS_OF: OnceLock<u32> = OnceLock::new();

/// candle as a [`Backend`].
///
/// candle's operations return errors and the contract's do not: the first failure is kept for
/// [`synchronize`](Backend::synchronize), and until it is reported nothing more is computed. candle takes its threads from
/// pools of the whole process, sized by the environment variable `RAYON_NUM_THREADS` (for products of quantised weights
/// `CANDLE_NUM_THREADS` goes before it) or the number of cores. A forked child has the pools without their threads, and would
/// wait for them for ever: what its parent has used is refused to it.
pub struct CandleBackend {
    device: Device,
    oracle: bool,
    /// The first operation that failed since failures were last reported.
    failure: Mutex<Option<Error>>,
}

impl CandleBackend {
    /// candle on the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] in a process that was forked after candle had computed something in its parent.
    pub fn new(options: CandleOptions) -> Result<Self> {
        if let Some(&process) = THREADS_OF.get()
            && process != std::process::id()
        {
            let reason = format!(
                "its threads are those of process {process} and do not survive fork(); fork before the parent computes on \
                 candle, start the child with the method \"spawn\", or use the device \"cpu\""
            );
            return Err(Error::Device { device: NAME, reason });
        }
        Ok(Self { device: Device::Cpu, oracle: options.oracle, failure: Mutex::new(None) })
    }

    /// Runs `f` unless an operation has failed before it, and keeps its failure; `None` where there is nothing to give.
    fn attempt<T>(&self, f: impl FnOnce() -> candle_core::Result<T>) -> Option<T> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return None;
        }
        THREADS_OF.get_or_init(std::process::id);
        f().inspect_err(|e| *failure = Some(device_error(e))).ok()
    }

    /// Sets `out` to what `f` computes, which is `rows` rows.
    fn compute(&self, rows: usize, out: &mut Matrix, f: impl FnOnce() -> candle_core::Result<Tensor>) {
        // Several of candle's operations refuse empty tensors.
        self.attempt(|| if rows == 0 { out.clear(&self.device) } else { out.set(&f()?) });
    }

    fn indices(&self, indices: &[u32]) -> candle_core::Result<Tensor> {
        Tensor::new(indices, &self.device)
    }
}

impl Backend for CandleBackend {
    type Tensor = Matrix;
    type Weight = Weight;
    type KvCache = KvCache;

    fn describe(&self) -> String {
        let device = match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        format!("candle ({device}{})", if self.oracle { ", f32 weights" } else { "" })
    }

    fn tensor(&self, rows: usize, cols: usize) -> Result<Matrix> {
        let data = zeros::<f32>(&self.device, &[rows, cols], "an activation buffer")?;
        Matrix::new(data).map_err(|e| device_error(&e))
    }

    fn upload(&self, data: &[f32], rows: usize, cols: usize) -> Result<Matrix> {
        let expected = rows.saturating_mul(cols);
        if data.len() != expected {
            return Err(Error::Shape { what: "values of a matrix", expected, got: data.len() });
        }
        let mut values = zeroed_vec::<f32>(data.len(), "an activation buffer")?;
        values.copy_from_slice(data);
        Matrix::new(tensor(&self.device, values, (rows, cols))?).map_err(|e| device_error(&e))
    }

    fn write(&self, data: &[f32], out: &mut Matrix) {
        let (cols, rows) = (out.cols(), data.len() / out.cols().max(1));
        self.compute(rows, out, || Tensor::from_slice(data, (rows, cols), &self.device));
    }

    fn download(&self, x: &Matrix) -> Vec<f32> {
        let values = self.attempt(|| x.data().flatten_all()?.to_vec1());
        values.unwrap_or_else(|| vec![0.0; x.rows() * x.cols()])
    }

    fn pack(&self, part: &WeightPart<'_>) -> Result<Weight> {
        Weight::pack(&self.device, part, !self.oracle)
    }

    fn stored_as(&self, dtype: DType, cols: usize) -> DType {
        if self.oracle { dtype } else { weight::stored_as(dtype, cols) }
    }

    fn concat(&self, parts: Vec<Weight>) -> Result<Weight> {
        Weight::concat(parts)
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<KvCache> {
        KvCache::new(&self.device, spec)
    }

    fn copy_blocks(&self, cache: &mut KvCache, copies: &[BlockCopy]) {
        self.attempt(|| cache.copy_blocks(copies));
    }

    fn embedding(&self, weight: &Weight, ids: &[u32], out: &mut Matrix) {
        self.compute(ids.len(), out, || weight.embedding(&self.device, ids));
    }

    fn rms_norm(&self, x: &Matrix, weight: &Matrix, eps: f32, out: &mut Matrix) {
        let (rows, cols, width) = (x.rows(), x.cols(), weight.cols());
        self.compute(rows, out, || {
            let groups = x.data().reshape((rows * (cols / width), width))?;
            rows::rms_norm(&groups, Some(weight.data()), eps)?.reshape((rows, cols))
        });
    }

    fn add_rms_norm(&self, x: &Matrix, residual: &mut Matrix, weight: &Matrix, eps: f32, out: &mut Matrix) {
        self.compute(x.rows(), out, || {
            residual.set(&(residual.data() + x.data())?)?;
            rows::rms_norm(residual.data(), Some(weight.data()), eps)
        });
    }

    fn linear(&self, x: &Matrix, weight: &Weight, bias: Option<&Matrix>, out: &mut Matrix) {
        self.compute(x.rows(), out, || {
            let product = weight.forward(x.data())?;
            if let Some(bias) = bias { product.broadcast_add(bias.data()) } else { Ok(product) }
        });
    }

    fn norm_rope_store(
        &self,
        qkv: &mut Matrix,
        heads: &HeadLayout,
        norms: &HeadNorms<'_, Matrix>,
        rope: Option<Rope<'_, Matrix>>,
        cache: &mut KvCache,
        layer: usize,
        context: &Context<'_>,
    ) {
        if qkv.rows() == 0 {
            return;
        }
        self.attempt(|| {
            let rows_of = |rope: Rope<'_, Matrix>| rope.table.data().index_select(&self.indices(rope.positions)?, 0);
            let rope = rope.map(rows_of).transpose()?;
            let slots = context.slot_mapping;
            qkv.set(&store::norm_rope_store(qkv.data(), heads, norms, rope.as_ref(), cache, layer, slots)?)
        });
    }

    fn attention(
        &self,
        qkv: &Matrix,
        heads: &HeadLayout,
        options: &AttentionOptions<'_, Matrix>,
        cache: &KvCache,
        layer: usize,
        context: &Context<'_>,
        out: &mut Matrix,
    ) {
        self.compute(qkv.rows(), out, || attention::attention(qkv.data(), heads, options, cache, layer, context));
    }

    fn activate_and_mul(&self, activation: Activation, x: &Matrix, out: &mut Matrix) {
        self.compute(x.rows(), out, || rows::activate_and_mul(activation, x.data()));
    }

    fn activate_and_mul_columns(
        &self,
        activation: Activation,
        gate: &Matrix,
        values: &Matrix,
        column: usize,
        out: &mut Matrix,
    ) {
        self.compute(gate.rows(), out, || {
            let values = values.data().narrow(1, column, gate.cols())?.contiguous()?;
            rows::gated(activation, gate.data(), &values)
        });
    }

    /// None: candle makes a tensor for each of its results.
    fn expert_room(&self, _: usize, _: usize, hidden: usize, intermediate: usize) -> Result<ExpertRoom<Matrix>> {
        ExpertRoom::new(self, 0, hidden, intermediate)
    }

    fn experts(
        &self,
        x: &Matrix,
        logits: &Matrix,
        routing: &Routing<'_, Matrix>,
        experts: &Experts<'_, Weight, Matrix>,
        _: &mut ExpertRoom<Matrix>,
        out: &mut Matrix,
    ) {
        self.compute(x.rows(), out, || experts::experts(&self.device, x.data(), logits.data(), routing, experts));
    }

    fn add(&self, x: &Matrix, sum: &mut Matrix) {
        if x.rows() > 0 {
            self.attempt(|| sum.set(&(sum.data() + x.data())?));
        }
    }

    fn scale(&self, x: &mut Matrix, by: Scale<'_>) {
        if x.rows() == 0 {
            return;
        }
        self.attempt(|| {
            let scaled = match by {
                Scale::All(factor) => (x.data() * f64::from(factor))?,
                Scale::Rows(factors) => x.data().broadcast_mul(&Tensor::new(factors, &self.device)?.unsqueeze(1)?)?,
            };
            x.set(&scaled)
        });
    }

    fn soft_cap(&self, x: &mut Matrix, cap: f32) {
        if x.rows() == 0 {
            return;
        }
        let cap = f64::from(cap);
        self.attempt(|| x.set(&((x.data() / cap)?.tanh()? * cap)?));
    }

    fn gather_rows(&self, x: &Matrix, rows: &[u32], out: &mut Matrix) {
        self.compute(rows.len(), out, || x.data().index_select(&self.indices(rows)?, 0));
    }

    fn sample(&self, logits: &mut Matrix, sample_rows: &[SampleRow<'_>], out: &mut [Sampled]) {
        let cols = logits.cols();
        let mut values = self.download(logits);
        for ((sampled, row), logits) in out.iter_mut().zip(sample_rows).zip(values.chunks_mut(cols.max(1))) {
            *sampled = row.choose(logits);
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.attempt(|| self.device.synchronize());
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Inspect for CandleBackend {
    fn unpack(&self, weight: &Weight) -> Vec<f32> {
        let values = self.attempt(|| weight.dequantize(&self.device)?.flatten_all()?.to_vec1());
        values.unwrap_or_else(|| vec![0.0; weight.rows() * weight.cols()])
    }

    fn read_kv_cache(&self, cache: &KvCache, layer: usize) -> (Vec<f32>, Vec<f32>) {
        let len = cache.spec().layer_len(layer);
        self.attempt(|| cache.read(layer)).unwrap_or_else(|| (vec![0.0; len], vec![0.0; len]))
    }

    fn write_kv_cache(&self, cache: &mut KvCache, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        probe(size_of_val(keys), "a layer of the KV cache")?;
        cache.write(layer, keys, values)
    }
}
