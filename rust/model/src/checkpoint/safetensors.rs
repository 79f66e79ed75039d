//! A Hugging Face directory: config.json and one or more safetensors files.

use std::path::{Path, PathBuf};

use nanovllm_backend::DType;
use nanovllm_gguf::FilePart;
use safetensors::Dtype;

use crate::checkpoint::names::{Listed, TensorNames};
use crate::checkpoint::place::{BLOCKS, Layout, Place, SCALES};
use crate::checkpoint::safetensors_files::{SafeTensorInfo, SafeTensorsFiles};
use crate::error::{LoadError, ParameterError, Result};
use crate::model_config::ModelConfig;
use crate::stored_tensor::StoredTensor;

/// A Hugging Face directory.
pub struct SafeTensorsCheckpoint {
    path: PathBuf,
    config: ModelConfig,
    files: SafeTensorsFiles,
    names: TensorNames,
}

/// What there is to know of a tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorLayout {
    /// The type of its elements.
    pub dtype: DType,
    /// The size of each dimension, outermost first.
    pub shape: Vec<usize>,
}

impl SafeTensorsCheckpoint {
    /// Opens the safetensors files of `dir`: those its index names, or all of them, as nano-vLLM does.
    ///
    /// # Errors
    /// What is missing from the directory or wrong with its files.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = read_config(&dir.join("config.json"))?;
        let files = SafeTensorsFiles::open(dir)?;
        let stored = files.tensors().iter().map(|info| {
            let bytes = files.data(info).len();
            Listed { name: &info.name, shape: &info.shape, bytes }
        });
        let family = config.family.config();
        let (fused, experts) = (family.fused_modules(), family.stacked_experts());
        let names = TensorNames::new(stored, config.has_other_parts, fused, experts);
        for place in names.names().iter().filter_map(|name| names.place(name)) {
            let Some(info) = files.info(&place.stored).filter(|info| dtype(place, info.dtype).is_none()) else {
                continue;
            };
            let (name, dtype) = (info.name.clone(), info.dtype.to_string());
            return Err(LoadError::UnsupportedDType { name, dtype });
        }
        let mut checkpoint = Self { path: dir.to_owned(), config, files, names };
        checkpoint.config.base.tie_word_embeddings = checkpoint.is_tied()?;
        Ok(checkpoint)
    }

    /// Whether the output projection is the embedding. As in transformers one that is stored counts where it differs,
    /// whatever config.json says: some tools train it and leave the setting. Of a model with other parts config.json speaks of
    /// ties in either of two objects, or not at all.
    fn is_tied(&self) -> Result<bool> {
        let says = self.config.base.tie_word_embeddings || self.config.has_other_parts;
        let head = self.tensor("lm_head.weight")?;
        let (Some(head), true) = (head, says) else { return Ok(says) };
        let embedding = self.tensor("model.embed_tokens.weight")?;
        Ok(self.config.base.tie_word_embeddings && embedding.is_some_and(|embedding| embedding.data == head.data))
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What a user should know of how the checkpoint was read, a line each.
    pub fn notes(&self) -> Vec<String> {
        let skipped = self.names.skipped;
        let note = format!("{skipped} tensors of the model's other parts, for images and sound, are not loaded");
        self.config.notes().into_iter().chain((skipped > 0).then_some(note)).collect()
    }

    /// The names of all tensors of the decoder, in the order of the files.
    pub fn names(&self) -> Vec<String> {
        self.names.names().to_vec()
    }

    /// The type and shape of the tensor with this name.
    pub fn layout(&self, name: &str) -> Option<TensorLayout> {
        let place = self.names.place(name)?;
        let info = self.files.info(&place.stored)?;
        Some(TensorLayout { dtype: dtype(place, info.dtype)?, shape: place.shape(&info.shape) })
    }

    /// The tensor with this name as layers use it.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] or [`LoadError::Io`] naming the file, where it is shorter than when it was opened;
    /// [`LoadError::MissingTensors`] and [`LoadError::Parameter`] for the exponents of blocks.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>> {
        let (Some(place), Some(TensorLayout { dtype, shape })) = (self.names.place(name), self.layout(name)) else {
            return Ok(None);
        };
        let Some(info) = self.files.info(&place.stored) else { return Ok(None) };
        self.files.check(info)?;
        let scales = match place.layout {
            Layout::Blocks { .. } => self.scales(info)?,
            _ => &[],
        };
        let data = place.data(&info.shape, self.files.data(info), dtype.type_size(), scales);
        let tensor = StoredTensor { name: &info.name, dtype, shape, data };
        self.config.family.config().tensor_table().as_used(name, tensor).map(Some)
    }

    /// The exponents of the blocks of a tensor, one for each.
    fn scales(&self, blocks: &SafeTensorInfo) -> Result<&[u8]> {
        let name = scales_of(blocks.name.strip_suffix(BLOCKS).unwrap_or(&blocks.name));
        let Some(info) = self.files.info(&name) else { return Err(LoadError::MissingTensors { names: vec![name] }) };
        self.files.check(info)?;
        let expected = &blocks.shape[..blocks.shape.len() - 1];
        if info.shape != expected {
            let (expected, got) = (expected.to_vec(), info.shape.clone());
            return Err(LoadError::parameter(&name, ParameterError::Shape { expected, got }));
        }
        if info.dtype != Dtype::U8 {
            return Err(LoadError::UnsupportedDType { name, dtype: info.dtype.to_string() });
        }
        Ok(self.files.data(info))
    }

    pub(super) fn part(&self, name: &str) -> Option<FilePart> {
        self.files.part(self.info(name)?)
    }

    /// Tells the system that the pages of the tensor with this name, or with this one in its file, are not needed for now.
    pub fn release(&self, name: &str) {
        let Some(info) = self.info(name).or_else(|| self.files.info(name)) else { return };
        self.files.release(info);
        if let Some(scales) = info.name.strip_suffix(BLOCKS).and_then(|module| self.files.info(&scales_of(module))) {
            self.files.release(scales);
        }
    }

    fn info(&self, name: &str) -> Option<&SafeTensorInfo> {
        self.files.info(&self.names.place(name)?.stored)
    }
}

/// What the exponents of a module's blocks are called.
fn scales_of(module: &str) -> String {
    format!("{module}{SCALES}")
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    let json = serde_json::from_str(&text).map_err(|error| LoadError::Config(error.to_string()));
    json.and_then(ModelConfig::from_json).map_err(|error| error.in_file(path))
}

/// The element type under this project's name; `None` for those that weights cannot have.
fn dtype(place: &Place, dtype: Dtype) -> Option<DType> {
    Some(match (place.layout, dtype) {
        (Layout::Blocks { .. }, Dtype::U8) => DType::MXFP4,
        (Layout::Blocks { .. }, _) => return None,
        (_, Dtype::F32) => DType::F32,
        (_, Dtype::F16) => DType::F16,
        (_, Dtype::BF16) => DType::Bf16,
        _ => return None,
    })
}
