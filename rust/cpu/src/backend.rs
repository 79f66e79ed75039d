//! The CPU as a device: what answers to the contract `Backend`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nanovllm_backend::{
    Activation, AttentionOptions, Backend, BlockCopy, Context, DType, Error, ExpertRoom, Experts, FilePart, HeadLayout,
    HeadNorms, Inspect, KvCacheSpec, Result, Rope, Routing, SampleRow, Sampled, Scale, WeightPart,
};

use crate::activations::{ActivationBits, Activations};
use crate::arena::Arena;
use crate::attention::{self, Scratch as AttentionScratch};
use crate::claims::Claims;
use crate::experts::{self, ExpertOrder};
use crate::format;
use crate::isa::Isa;
use crate::kernels::table::Kernels;
use crate::kv_cache::KvCache;
use crate::matmul::{self, Matmul, Weight};
use crate::pack::Packed;
use crate::rows;
use crate::sample;
use crate::store;
use crate::team::Team;
use crate::tensor::Tensor;

/// How to set up the device.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// How many threads compute, the caller counted; where it is not given, as many as the machine offers.
    pub num_threads: Option<usize>,
    /// The instruction set to use; where it is not given, the best the machine has.
    pub isa: Option<Isa>,
    /// How many bits of the activations quantised weights are multiplied with.
    pub activation_bits: ActivationBits,
}

/// The CPU as a [`Backend`].
pub struct CpuBackend {
    isa: Isa,
    team: Team,
    arena: Arena,
    kernels: Kernels,
    activation_bits: ActivationBits,
    scratch: Mutex<Scratch>,
}

/// Memory that one operation at a time works in.
struct Scratch {
    activations: Activations,
    attention: AttentionScratch,
    experts: ExpertOrder,
}

impl CpuBackend {
    /// Makes a device with a team of threads of its own.
    ///
    /// # Errors
    /// [`Error::Option`] when an option is out of range or not to be had on this machine.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let kernels = Kernels::new(isa).ok_or_else(|| isa.missing())?;
        let offered = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let team = Team::new(options.num_threads.unwrap_or_else(|| offered().min(1024)))?;
        Ok(Self {
            isa,
            arena: Arena::default(),
            activation_bits: options.activation_bits,
            kernels,
            scratch: Mutex::new(Scratch {
                activations: Activations::new()?,
                attention: AttentionScratch::new(team.size()),
                experts: ExpertOrder::default(),
            }),
            team,
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads, the caller counted.
    pub fn num_threads(&self) -> usize {
        self.team.size()
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for CpuBackend {
    type Tensor = Tensor;
    type Weight = Weight;
    type KvCache = KvCache;

    fn describe(&self) -> String {
        let threads = self.team.size();
        format!("cpu ({}, {threads} thread{})", self.isa, if threads == 1 { "" } else { "s" })
    }

    /// Also makes room for the codes of such a matrix, so that [`linear`](Backend::linear) never allocates.
    fn tensor(&self, rows: usize, cols: usize) -> Result<Tensor> {
        self.scratch().activations.reserve(rows, cols)?;
        Tensor::zeroed(rows, cols)
    }

    fn upload(&self, data: &[f32], rows: usize, cols: usize) -> Result<Tensor> {
        let expected = rows.saturating_mul(cols);
        if data.len() != expected {
            return Err(Error::Shape { what: "values of a matrix", expected, got: data.len() });
        }
        let mut tensor = self.tensor(rows, cols)?;
        tensor.as_mut_slice().copy_from_slice(data);
        Ok(tensor)
    }

    fn write(&self, data: &[f32], out: &mut Tensor) {
        out.set_rows(data.len() / out.cols().max(1));
        out.as_mut_slice().copy_from_slice(data);
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        x.as_slice().to_vec()
    }

    fn pack(&self, part: &WeightPart<'_>) -> Result<Weight> {
        Ok(Weight { parts: vec![Packed::new(part, self.kernels.matmul.lanes, &self.arena, &self.team)?] })
    }

    fn mapped(&self, part: &WeightPart<'_>, data: &FilePart) -> Result<Option<Weight>> {
        Ok(Some(Weight { parts: vec![Packed::stored(part, data, self.kernels.matmul.lanes)?] }))
    }

    fn packed_bytes(&self, dtype: DType, elements: u64) -> u64 {
        format::packed_bytes(dtype, elements).unwrap_or(0) // a type that is refused
    }

    fn stored_as(&self, dtype: DType, _cols: usize) -> DType {
        format::stored_as(dtype)
    }

    fn concat(&self, parts: Vec<Weight>) -> Result<Weight> {
        Weight::concat(parts)
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<KvCache> {
        KvCache::new(spec, &self.kernels.attention)
    }

    fn copy_blocks(&self, cache: &mut KvCache, copies: &[BlockCopy]) {
        cache.copy_blocks(&self.team, copies);
    }

    fn embedding(&self, weight: &Weight, ids: &[u32], out: &mut Tensor) {
        out.set_rows(ids.len());
        let rows = out.shared();
        let claims = Claims::new(ids.len());
        let gather = || {
            while let Some(range) = claims.take(8) {
                for i in range {
                    // SAFETY: `out` has a row for every id, and each is claimed once.
                    weight.unpack_row(ids[i] as usize, unsafe { rows.row(i) });
                }
            }
        };
        // Unpacking one row takes about as long as waking the team.
        if ids.len() < 4 { gather() } else { self.team.run(|_| gather()) }
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, out: &mut Tensor) {
        rows::rms_norm(&self.team, &self.kernels.rows, x, weight, eps, out);
    }

    fn add_rms_norm(&self, x: &Tensor, residual: &mut Tensor, weight: &Tensor, eps: f32, out: &mut Tensor) {
        rows::add_rms_norm(&self.team, &self.kernels.rows, x, residual, weight, eps, out);
    }

    fn linear(&self, x: &Tensor, weight: &Weight, bias: Option<&Tensor>, out: &mut Tensor) {
        let matmul = Matmul { kernels: &self.kernels.matmul, bits: self.activation_bits };
        matmul::linear(&self.team, matmul, &mut self.scratch().activations, x, weight, bias, out);
    }

    fn norm_rope_store(
        &self,
        qkv: &mut Tensor,
        heads: &HeadLayout,
        norms: &HeadNorms<'_, Tensor>,
        rope: Option<Rope<'_, Tensor>>,
        cache: &mut KvCache,
        layer: usize,
        context: &Context<'_>,
    ) {
        store::norm_rope_store(&self.team, &self.kernels.rows, qkv, heads, norms, rope, cache, layer, context);
    }

    fn attention(
        &self,
        qkv: &Tensor,
        heads: &HeadLayout,
        options: &AttentionOptions<'_, Tensor>,
        cache: &KvCache,
        layer: usize,
        context: &Context<'_>,
        out: &mut Tensor,
    ) {
        let scratch = &mut self.scratch().attention;
        attention::attention(
            &self.team,
            &self.kernels.attention,
            scratch,
            qkv,
            heads,
            options,
            cache,
            layer,
            context,
            out,
        );
    }

    fn activate_and_mul(&self, activation: Activation, x: &Tensor, out: &mut Tensor) {
        rows::activate_and_mul(&self.team, &self.kernels.rows, activation, x, out);
    }

    fn activate_and_mul_columns(
        &self,
        activation: Activation,
        gate: &Tensor,
        values: &Tensor,
        column: usize,
        out: &mut Tensor,
    ) {
        rows::activate_and_mul_columns(&self.team, &self.kernels.rows, activation, gate, values, column, out);
    }

    fn experts(
        &self,
        x: &Tensor,
        logits: &Tensor,
        routing: &Routing<'_, Tensor>,
        experts: &Experts<'_, Weight, Tensor>,
        room: &mut ExpertRoom<Tensor>,
        out: &mut Tensor,
    ) {
        let matmul = Matmul { kernels: &self.kernels.matmul, bits: self.activation_bits };
        let kernels = experts::Kernels { matmul, rows: &self.kernels.rows };
        let Scratch { activations, experts: order, .. } = &mut *self.scratch();
        experts::experts(&self.team, &kernels, activations, order, x, logits, routing, experts, room, out);
    }

    fn add(&self, x: &Tensor, sum: &mut Tensor) {
        rows::add(&self.team, x, sum);
    }

    fn scale(&self, x: &mut Tensor, by: Scale<'_>) {
        rows::scale(&self.team, x, by);
    }

    fn soft_cap(&self, x: &mut Tensor, cap: f32) {
        rows::soft_cap(&self.team, &self.kernels.rows, x, cap);
    }

    fn gather_rows(&self, x: &Tensor, indices: &[u32], out: &mut Tensor) {
        rows::gather_rows(&self.team, x, indices, out);
    }

    fn sample(&self, logits: &mut Tensor, rows: &[SampleRow<'_>], out: &mut [Sampled]) {
        sample::sample(&self.team, &self.kernels.rows, logits, rows, out);
    }
}

impl Inspect for CpuBackend {
    fn unpack(&self, weight: &Weight) -> Vec<f32> {
        let (rows, cols) = (weight.rows(), weight.cols());
        let mut out = vec![0.0; rows * cols];
        for (row, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
            weight.unpack_row(row, out);
        }
        out
    }

    fn read_kv_cache(&self, cache: &KvCache, layer: usize) -> (Vec<f32>, Vec<f32>) {
        cache.copy_layer(layer)
    }

    fn write_kv_cache(&self, cache: &mut KvCache, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        cache.write_layer(layer, keys, values)
    }
}
