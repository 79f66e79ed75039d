//! The model to be quantised as GGUF would store it: its metadata, and its tensors one at a time.

use std::path::Path;

use nanovllm_gguf::{Array, GgmlType, GgufFile, Value};
use nanovllm_model::{ExportedTensor, SafeTensorsCheckpoint};

use super::metadata::{self, Exported};
use super::mix::{Model, value_layers};
use crate::error::Error;
use crate::model_files::ModelFiles;

/// A tensor under the name that GGUF has for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceTensor {
    pub(crate) name: String,
    pub(crate) dtype: GgmlType,
    /// Innermost first, as GGUF writes them.
    pub(crate) dims: Vec<usize>,
}

impl SourceTensor {
    /// How many elements a row has.
    pub(crate) fn cols(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }
}

/// The files that the tensors are read from.
enum Files {
    Gguf(GgufFile),
    /// The names are those in the checkpoint that each tensor is made of, in the order of [`Source::tensors`].
    HuggingFace {
        checkpoint: Box<SafeTensorsCheckpoint>,
        names: Vec<Vec<String>>,
    },
}

/// A model to be quantised.
pub(crate) struct Source {
    files: Files,
    /// The metadata of the file to be written, but for what quantising changes.
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<SourceTensor>,
    /// What GGUF has no way to say of the model, a phrase each.
    pub(crate) lost: Vec<String>,
    /// What there is to know of the model's configuration, a line each.
    pub(crate) notes: Vec<String>,
    /// Tensors that are not in the files but follow from the configuration (`rope_freqs.weight`), with their bytes.
    extra: Vec<(SourceTensor, Vec<u8>)>,
    num_layers: usize,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        match ModelFiles::open(path)? {
            ModelFiles::Gguf(file) => Self::gguf(file),
            ModelFiles::SafeTensors { dir, checkpoint } => Self::hugging_face(&dir, checkpoint),
        }
    }

    fn gguf(file: GgufFile) -> Result<Self, Error> {
        let metadata = file.metadata();
        let architecture = metadata.str("general.architecture")?.to_owned();
        let number = |key: &str| metadata.opt_u64(&format!("{architecture}.{key}"));
        let num_layers = number("block_count")?.unwrap_or(0);
        let tensor =
            |t: &nanovllm_gguf::TensorInfo| SourceTensor { name: t.name.clone(), dtype: t.dtype, dims: t.dims.clone() };
        Ok(Self {
            metadata: metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            tensors: file.tensors().iter().map(tensor).collect(),
            lost: Vec::new(),
            notes: Vec::new(),
            extra: Vec::new(),
            num_layers: u32::try_from(num_layers).unwrap_or(u32::MAX) as usize,
            files: Files::Gguf(file),
        })
    }

    fn hugging_face(dir: &Path, checkpoint: Box<SafeTensorsCheckpoint>) -> Result<Self, Error> {
        let config = checkpoint.config();
        let exported = checkpoint.gguf_tensors()?.into_iter();
        let split = |t: ExportedTensor| (SourceTensor { name: t.name, dtype: t.dtype, dims: t.dims }, t.stored_names);
        let (tensors, names) = exported.map(split).unzip();
        let extra = config.rope_tensors()?.into_iter().map(|(name, factors)| {
            let tensor = SourceTensor { name: name.to_owned(), dtype: GgmlType::F32, dims: vec![factors.len()] };
            (tensor, factors.iter().flat_map(|factor| factor.to_le_bytes()).collect())
        });
        let Exported { pairs: metadata, lost } = metadata::from_directory(dir, config)?;
        Ok(Self {
            metadata,
            tensors,
            lost,
            notes: checkpoint.notes(),
            extra: extra.collect(),
            num_layers: config.base.num_hidden_layers,
            files: Files::HuggingFace { checkpoint, names },
        })
    }

    /// Whether the model is a Hugging Face directory.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.files, Files::HuggingFace { .. })
    }

    /// What the rules of the mixes ask.
    pub(crate) fn model(&self) -> Model {
        Model {
            num_layers: self.num_layers,
            value_layers: value_layers(self.tensors.iter().map(|t| t.name.as_str())),
            heads_per_kv_head: self.heads_per_kv_head(),
            tied: !self.tensors.iter().any(|t| t.name == "output.weight"),
            num_experts: self.number(".expert_count").unwrap_or(0),
        }
    }

    fn heads_per_kv_head(&self) -> usize {
        let heads = self.number(".attention.head_count").unwrap_or(1);
        heads / self.number(".attention.head_count_kv").unwrap_or(heads).max(1)
    }

    /// The number under the key that ends so, or the first of a list of them.
    fn number(&self, key: &str) -> Option<usize> {
        match &self.metadata.iter().find(|(name, _)| name.ends_with(key))?.1 {
            Value::U32(number) => Some(*number as usize),
            Value::Array(Array::U32(list)) => Some(*list.first()? as usize),
            Value::Array(Array::I32(list)) => usize::try_from(*list.first()?).ok(),
            _ => None,
        }
    }

    /// Calls `with` with the bytes of tensor `i`, and then tells the system that their pages are not needed any more.
    pub(crate) fn read<T>(&self, i: usize, with: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
        let name = || self.tensors.get(i).map_or_else(String::new, |t| t.name.clone());
        let gone = || Error::Tensor { name: name(), reason: "is no longer in the file".to_owned() };
        match &self.files {
            Files::Gguf(file) => {
                file.check(&name())?;
                let view = file.tensor(&name()).ok_or_else(gone)?;
                let result = with(view.data);
                file.release(&view);
                result
            }
            Files::HuggingFace { checkpoint, names } => {
                let stored = names.get(i).ok_or_else(gone)?;
                let data = checkpoint.gguf_data(stored)?.ok_or_else(gone)?;
                let result = with(&data);
                for name in stored {
                    checkpoint.release(name);
                }
                result
            }
        }
    }

    /// Tensors that are not in the source's files, with their bytes.
    pub(crate) fn extra(&self) -> &[(SourceTensor, Vec<u8>)] {
        &self.extra
    }
}
