//! A loaded model on a device: weights, cache and buffers behind [`CausalLm`].

use std::ops::Range;

use nanovllm_backend::{
    Backend, BlockCopy, DType, Error, FilePart, KvCacheSpec, LayerCache, Memory, SampleRow, Sampled,
};

use crate::causal_lm::{CausalLm, ModelInput, StepError};
use crate::checkpoint::Checkpoint;
use crate::decoder::{Decoder, HEAD_ROWS};
use crate::error::{LoadError, Result};
use crate::expert_budget::ExpertBudget;
use crate::slices::{SLICE_ROWS, Slicer};
use crate::weights::Weights;

struct Model<B: Backend> {
    backend: B,
    decoder: Box<dyn Decoder<B>>,
    /// The family's name, for logs.
    name: &'static str,
    vocab_size: usize,
    hidden_size: usize,
    layers: Vec<LayerCache>,
    kv_dtype: DType,
    /// The longest sequence in tokens, which is the length of the rotary tables.
    positions: usize,
    notes: Vec<String>,
    /// A part of each file in which weights have stayed.
    files: Vec<FilePart>,
    /// None until it is allocated.
    cache: Option<B::KvCache>,
    slicer: Slicer,
    /// The rows of the current slice of which something is wanted, counted from the slice's first; kept so that steps need not
    /// allocate it.
    rows: Vec<u32>,
}

/// How to load a model.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// For sequences of how many tokens; fewer where the checkpoint allows fewer.
    pub max_model_len: usize,
    /// How many bytes weights may take; of a model that needs more, experts stay in their files, as far as the device can compute on
    /// them there. `None` for whatever it takes.
    pub memory: Option<u64>,
}

/// Loads `checkpoint` onto `backend`.
///
/// # Errors
/// Whatever is wrong with the checkpoint: a tensor that is missing, that the model does not know, or that has another
/// shape than the configuration says. [`LoadError::Backend`] when the device cannot hold it.
pub fn load<B: Backend>(backend: B, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Box<dyn CausalLm>> {
    load_from(backend, checkpoint, options).map_err(|error| error.in_file(checkpoint.path()))
}

fn load_from<B: Backend>(backend: B, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Box<dyn CausalLm>> {
    let config = checkpoint.config();
    let mut weights = Weights::new(&backend, checkpoint);
    if let (Some(memory), Some(_)) = (options.memory, config.experts()) {
        let (experts, others) = checkpoint.sizes(|dtype, elements| backend.packed_bytes(dtype, elements));
        weights.expert_budget = ExpertBudget::new(experts, others, memory);
    }
    // Layers are made before it shows that their tensors are missing, so a wrong number must not make too many.
    if config.base.num_hidden_layers > weights.len() {
        return Err(LoadError::Config(format!(
            "num_hidden_layers is {}, but the checkpoint has {} tensors in all",
            config.base.num_hidden_layers,
            weights.len()
        )));
    }
    let positions = options.max_model_len.min(config.base.max_position_embeddings);
    let decoder = config.family.decoder(&config.base, &mut weights, positions)?;
    let notes = checkpoint.notes().into_iter().chain(weights.notes()).collect();
    let kv_dtype = weights.kv_cache_dtype();
    weights.finish()?;
    let files = weights.expert_budget.as_ref().map_or_else(Vec::new, |budget| budget.files().to_vec());
    Ok(Box::new(Model {
        backend,
        decoder,
        name: config.family.row().name,
        vocab_size: config.base.vocab_size,
        hidden_size: config.base.hidden_size,
        layers: config.cache_layers(),
        kv_dtype,
        positions,
        notes,
        files,
        cache: None,
        slicer: Slicer::default(),
        rows: Vec::new(),
    }))
}

impl<B: Backend> Model<B> {
    /// Runs `input` slice by slice. `look` is shown the decoder with the `wanted` rows of the slice that it has just run, at most
    /// [`HEAD_ROWS`] at a time and counted from the slice's first, and their range in `wanted`.
    fn run(
        &mut self,
        input: &ModelInput,
        wanted: &[u32],
        mut look: impl FnMut(&B, &mut dyn Decoder<B>, &[u32], Range<usize>),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), StepError> {
        let Some(cache) = &mut self.cache else {
            return Err(no_cache().into());
        };
        let longest = input.context_lens.iter().max().map_or(0, |&n| n as usize);
        if longest > self.positions {
            let (what, expected) = ("positions of a sequence", self.positions);
            return Err(StepError::Backend(Error::Shape { what, expected, got: longest }));
        }
        let total = input.num_rows();
        let last = wanted.last().map_or(0, |&row| row as usize + 1);
        if last > total || !wanted.is_sorted() {
            let (what, expected) = ("rows of a step, ascending", total);
            return Err(StepError::Backend(Error::Shape { what, expected, got: last }));
        }
        let mut done = 0;
        for start in (0..total).step_by(SLICE_ROWS) {
            if start > 0 && interrupted() {
                return Err(StepError::Interrupted);
            }
            for file in &self.files {
                file.check().map_err(|error| Error::Device { device: "the host", reason: error.to_string() })?;
            }
            let end = (start + SLICE_ROWS).min(total);
            let slice = self.slicer.slice(input, start, end);
            self.decoder.forward(&self.backend, &slice, cache)?;
            let in_slice = wanted[done..].iter().take_while(|&&row| (row as usize) < end);
            self.rows.clear();
            self.rows.extend(in_slice.map(|row| row - start as u32));
            for rows in self.rows.chunks(HEAD_ROWS) {
                look(&self.backend, self.decoder.as_mut(), rows, done..done + rows.len());
                done += rows.len();
            }
            self.backend.synchronize()?;
        }
        Ok(())
    }
}

impl<B: Backend> CausalLm for Model<B> {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn max_model_len(&self) -> usize {
        self.positions
    }

    fn describe(&self) -> String {
        format!("{} on {}", self.name, self.backend.describe())
    }

    fn memory(&self) -> Option<Memory> {
        self.backend.memory()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        let dtype = dtype.unwrap_or(self.kv_dtype);
        KvCacheSpec { num_blocks, block_size, dtype, layers: self.layers.clone() }
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> std::result::Result<(), Error> {
        self.cache = None; // the old one first: two may not fit
        self.cache = Some(self.backend.kv_cache(spec)?);
        Ok(())
    }

    fn copy_blocks(&mut self, copies: &[BlockCopy]) -> std::result::Result<(), Error> {
        let Some(cache) = &mut self.cache else { return Err(no_cache()) };
        self.backend.copy_blocks(cache, copies);
        self.backend.synchronize()
    }

    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        sampling: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<Vec<Sampled>, StepError> {
        if rows.len() != sampling.len() {
            let (what, expected, got) = ("descriptions of how to sample, one for each row", rows.len(), sampling.len());
            return Err(StepError::Backend(Error::Shape { what, expected, got }));
        }
        let mut sampled = vec![Sampled::default(); rows.len()];
        self.run(
            input,
            rows,
            |backend, decoder, rows, of| {
                backend.sample(decoder.logits(backend, rows), &sampling[of.clone()], &mut sampled[of]);
            },
            interrupted,
        )?;
        Ok(sampled)
    }

    fn logits(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), StepError> {
        let look = |backend: &B, decoder: &mut dyn Decoder<B>, rows: &[u32], _| {
            out.extend(backend.download(decoder.logits(backend, rows)));
        };
        self.run(input, rows, look, interrupted)
    }

    fn hidden_states(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), StepError> {
        let look = |backend: &B, decoder: &mut dyn Decoder<B>, rows: &[u32], _| {
            take(&backend.download(decoder.hidden_states(backend, rows)));
        };
        self.run(input, rows, look, interrupted)
    }
}

fn no_cache() -> Error {
    Error::Option("the KV cache is not allocated".into())
}
