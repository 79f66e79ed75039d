//! A loaded model on a device: weights, cache and buffers behind [`CausalLm`].

use nanovllm_backend::{Backend, DType, Error, KvCacheSpec, SampleRow};

use crate::causal_lm::{CausalLm, ModelInput, StepError};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::{LoadError, Result};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::models::qwen3::Qwen3ForCausalLm;
use crate::models::{Buffers, HeadBuffers};
use crate::slices::{SLICE_ROWS, Slicer};
use crate::weights::Weights;

/// Most rows whose logits are held at once.
const HEAD_ROWS: usize = 64;

struct Model<B: Backend> {
    backend: B,
    config: ModelConfig,
    kv_dtype: DType,
    /// Length of the rotary table.
    positions: usize,
    decoder: Qwen3ForCausalLm<B>,
    rotary: RotaryEmbedding<B>,
    notes: Vec<String>,
    cache: Option<B::KvCache>,
    buffers: Buffers<B>,
    head: HeadBuffers<B>,
    slicer: Slicer,
    /// Rows of the current slice that need logits.
    rows: Vec<u32>,
    plan: Vec<SampleRow>,
}

/// Loads `checkpoint` onto `backend`, for sequences of up to `max_model_len` tokens.
///
/// # Errors
/// Whatever is wrong with the checkpoint, each parameter being loaded exactly once; [`LoadError::Backend`] when the device
/// cannot hold it.
pub fn load<B: Backend>(backend: B, checkpoint: &Checkpoint, max_model_len: usize) -> Result<Box<dyn CausalLm>> {
    let config = checkpoint.config().clone();
    let mut weights = Weights::new(&backend, checkpoint);
    if config.num_hidden_layers > weights.len() {
        return Err(LoadError::Config(format!(
            "num_hidden_layers is {}, but the checkpoint has {} tensors in all",
            config.num_hidden_layers,
            weights.len()
        )));
    }
    let stored = weights.dtype("model.layers.0.self_attn.q_proj.weight");
    let decoder = Qwen3ForCausalLm::load(&mut weights, &config)?;
    let notes = weights.notes();
    weights.finish()?;
    let positions = max_model_len.min(config.max_position_embeddings);
    Ok(Box::new(Model {
        rotary: RotaryEmbedding::new(&backend, &config.rope, config.head_dim, positions)?,
        buffers: Buffers::new(&backend, config.hidden_size, config.intermediate_size, &config.heads(), SLICE_ROWS)?,
        head: HeadBuffers::new(&backend, config.hidden_size, config.vocab_size, HEAD_ROWS)?,
        kv_dtype: if stored == Some(DType::F32) { DType::F32 } else { DType::Bf16 },
        positions,
        backend,
        config,
        decoder,
        notes,
        cache: None,
        slicer: Slicer::default(),
        rows: Vec::new(),
        plan: Vec::new(),
    }))
}

impl<B: Backend> Model<B> {
    /// Runs `input` slice by slice. `wanted` gets a row's sequence and whether the row is its last; where it answers with a
    /// plan, `use_logits` gets the logits of those rows, at most [`HEAD_ROWS`] at a time.
    fn run(
        &mut self,
        input: &ModelInput,
        wanted: impl Fn(usize, bool) -> Option<SampleRow>,
        mut use_logits: impl FnMut(&B, &B::Tensor, &[SampleRow]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), StepError> {
        let Some(cache) = &mut self.cache else {
            return Err(StepError::Backend(Error::Option("the KV cache is not allocated".into())));
        };
        let longest = input.context_lens.iter().max().map_or(0, |&n| n as usize);
        if longest > self.positions {
            let (what, expected) = ("positions of a sequence", self.positions);
            return Err(StepError::Backend(Error::Shape { what, expected, got: longest }));
        }
        let total = input.input_ids.len();
        let mut sequence = 0;
        for start in (0..total).step_by(SLICE_ROWS) {
            if start > 0 && interrupted() {
                return Err(StepError::Interrupted);
            }
            let end = (start + SLICE_ROWS).min(total);
            let slice = self.slicer.slice(input, start, end);
            self.decoder.model.forward(&self.backend, &self.rotary, &slice, cache, &mut self.buffers);
            self.rows.clear();
            self.plan.clear();
            for row in start..end {
                while input.cu_seqlens_q[sequence + 1] as usize <= row {
                    sequence += 1;
                }
                let last = input.cu_seqlens_q[sequence + 1] as usize == row + 1;
                if let Some(plan) = wanted(sequence, last) {
                    self.rows.push((row - start) as u32);
                    self.plan.push(plan);
                }
            }
            for (rows, plan) in self.rows.chunks(HEAD_ROWS).zip(self.plan.chunks(HEAD_ROWS)) {
                self.backend.gather_rows(&self.buffers.hidden, rows, &mut self.head.hidden);
                self.backend.gather_rows(&self.buffers.residual, rows, &mut self.head.residual);
                self.decoder.logits(&self.backend, &mut self.head);
                use_logits(&self.backend, &self.head.logits, plan);
            }
            self.backend.synchronize()?;
        }
        Ok(())
    }
}

impl<B: Backend> CausalLm for Model<B> {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn describe(&self) -> String {
        format!("{:?} on {}", self.config.architecture, self.backend.describe())
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        KvCacheSpec {
            num_layers: self.config.num_hidden_layers,
            num_blocks,
            block_size,
            num_kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            dtype: dtype.unwrap_or(self.kv_dtype),
        }
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> std::result::Result<(), Error> {
        self.cache = None; // the old one first: two may not fit
        self.cache = Some(self.backend.kv_cache(spec)?);
        Ok(())
    }

    fn step(
        &mut self,
        input: &ModelInput,
        sample: &[Option<SampleRow>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<Vec<u32>, StepError> {
        let mut tokens = Vec::with_capacity(sample.len());
        self.run(
            input,
            |sequence, last| sample[sequence].filter(|_| last),
            |backend, logits, plan| {
                let start = tokens.len();
                tokens.resize(start + plan.len(), 0);
                backend.sample(logits, plan, &mut tokens[start..]);
            },
            interrupted,
        )?;
        Ok(tokens)
    }

    fn logits(
        &mut self,
        input: &ModelInput,
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), StepError> {
        let every_row = SampleRow { temperature: 0.0, key: 0, position: 0 };
        self.run(input, |_, _| Some(every_row), |backend, logits, _| out.extend(backend.download(logits)), interrupted)
    }
}
