//! A Hugging Face directory: config.json and one or more safetensors files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use nanovllm_backend::DType;
use safetensors::{Dtype, SafeTensors};

use super::StoredTensor;
use crate::config::ModelConfig;
use crate::error::{LoadError, Result};

/// A Hugging Face directory.
pub struct SafeTensorsCheckpoint {
    config: ModelConfig,
    files: Vec<Mmap>,
    tensors: BTreeMap<String, Entry>,
}

/// Where a tensor lies.
struct Entry {
    file: usize,
    start: usize,
    end: usize,
    dtype: DType,
    shape: Vec<usize>,
}

impl SafeTensorsCheckpoint {
    /// Opens every `*.safetensors` of `dir`, as nano-vLLM does; an index file is not needed.
    ///
    /// # Errors
    /// What is missing from the directory or wrong with its files.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = read_config(&dir.join("config.json"))?;
        let mut this = Self { config, files: Vec::new(), tensors: BTreeMap::new() };
        for path in list(dir)? {
            this.add(&path)?;
        }
        if this.files.is_empty() {
            let reason = "no *.safetensors file in this directory".to_owned();
            return Err(LoadError::NotAModel { path: dir.to_owned(), reason });
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let malformed = |reason: String| LoadError::SafeTensors { path: path.to_owned(), reason };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private to us; that the file is not changed while it is open is the condition
        // every memory-mapped checkpoint is used under.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let parsed = SafeTensors::deserialize(&map).map_err(|e| malformed(e.to_string()))?;
        for (name, view) in parsed.iter() {
            let dtype = dtype(view.dtype()).ok_or_else(|| LoadError::UnsupportedDType {
                name: name.to_owned(),
                dtype: format!("{:?}", view.dtype()),
            })?;
            let start = view.data().as_ptr().addr() - map.as_ptr().addr();
            let (file, end) = (self.files.len(), start + view.data().len());
            let entry = Entry { file, start, end, dtype, shape: view.shape().to_vec() };
            if self.tensors.insert(name.to_owned(), entry).is_some() {
                return Err(LoadError::DuplicateTensor { name: name.to_owned() });
            }
        }
        self.files.push(map);
        Ok(())
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        let data = Cow::Borrowed(&self.files[entry.file][entry.start..entry.end]);
        Some(StoredTensor { name, dtype: entry.dtype, shape: entry.shape.clone(), data })
    }

    /// Tells the system that the pages of the tensor `name` are not needed for now.
    pub(super) fn release(&self, name: &str) {
        #[cfg(unix)]
        if let Some(entry) = self.tensors.get(name) {
            // SAFETY: the mapping is of a file and read-only, so a page dropped is read again when next touched; advice that
            // the system does not take changes nothing.
            #[allow(unsafe_code)]
            let _ = unsafe {
                let (offset, len) = (entry.start, entry.end - entry.start);
                self.files[entry.file].unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len)
            };
        }
        #[cfg(not(unix))]
        let _ = name;
    }
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    let json = serde_json::from_str(&text).map_err(|e| LoadError::Config(format!("{}: {e}", path.display())))?;
    ModelConfig::from_json(json)
}

/// The safetensors files of a directory, in name order.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| LoadError::Io { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        // Hidden files are none of ours (macOS leaves `._name` beside a copied file).
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == "safetensors") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        _ => return None,
    })
}
