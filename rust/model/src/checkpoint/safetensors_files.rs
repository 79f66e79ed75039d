//! The tensors of one or more safetensors files, whatever model they belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanovllm_gguf::{FileBytes, FilePart};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{LoadError, Result};

/// The file of a directory that says which of its files holds a tensor.
const INDEX: &str = "model.safetensors.index.json";

/// The most bytes that a header has, a limit of the format.
const MAX_HEADER: usize = 100_000_000;

/// A tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SafeTensorInfo {
    /// The tensor's name, unique in all files.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size of each dimension, outermost first; none for a scalar, and sizes may be zero.
    pub shape: Vec<usize>,
    file: usize,
    /// Where the data begin and end in the file, in bytes.
    start: usize,
    end: usize,
}

impl SafeTensorInfo {
    /// The size of the data in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One or more safetensors files, mapped and checked; the data are read on first use.
///
/// A mapped file must not be changed while it is open; see [`FileBytes`].
#[derive(Debug, Default)]
pub struct SafeTensorsFiles {
    files: Vec<Arc<FileBytes>>,
    tensors: Vec<SafeTensorInfo>,
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensorsFiles {
    /// Opens one file, or those of a directory: the ones its `model.safetensors.index.json` names, else every
    /// `*.safetensors`.
    ///
    /// # Errors
    /// [`LoadError::NotAModel`] for a directory without such files, [`LoadError::SafeTensors`] for a malformed file or
    /// index, [`LoadError::DuplicateTensor`], [`LoadError::Gguf`] (its errors of reading files), [`LoadError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::open_all(&[path.to_owned()]);
        }
        let index = path.join(INDEX);
        if index.is_file() {
            return Self::open_indexed(path, &index);
        }
        let paths = list(path)?;
        if paths.is_empty() {
            let reason = "no *.safetensors file in this directory".to_owned();
            return Err(LoadError::NotAModel { path: path.to_owned(), reason });
        }
        Self::open_all(&paths)
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] if it is malformed.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let mut this = Self::default();
        this.add(bytes.into())?;
        Ok(this)
    }

    fn open_all(paths: &[PathBuf]) -> Result<Self> {
        let mut this = Self::default();
        for path in paths {
            this.add(FileBytes::open(path).map_err(|error| error.in_file(path))?)?;
        }
        Ok(this)
    }

    /// Opens the files of `dir` that its index names, each of which must hold the tensors that it is said to hold.
    fn open_indexed(dir: &Path, index: &Path) -> Result<Self> {
        let map = read_index(index)?;
        let files: BTreeSet<&String> = map.values().collect();
        let paths: Vec<PathBuf> = files.into_iter().map(|file| dir.join(file)).collect();
        let this = Self::open_all(&paths)?;
        for (name, file) in &map {
            let holder = this.info(name).and_then(|info| this.files.get(info.file));
            if holder.is_none_or(|holder| holder.path() != dir.join(file)) {
                return Err(malformed(index, format!("tensor {name:?} is not in {file:?}")));
            }
        }
        Ok(this)
    }

    fn add(&mut self, bytes: FileBytes) -> Result<()> {
        let (data, metadata) = header(&bytes).map_err(|reason| malformed(bytes.path(), reason))?;
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let (start, end) = info.data_offsets; // checked against the file's size
            let (dtype, shape) = (info.dtype, info.shape.clone());
            if self.index.insert(name.clone(), self.tensors.len()).is_some() {
                return Err(LoadError::DuplicateTensor { name });
            }
            let file = self.files.len();
            self.tensors.push(SafeTensorInfo { name, dtype, shape, file, start: data + start, end: data + end });
        }
        for (key, value) in metadata.metadata().iter().flatten() {
            self.metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.files.push(Arc::new(bytes));
        Ok(())
    }

    /// All tensors, in the order of the files and of the data in them.
    pub fn tensors(&self) -> &[SafeTensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&SafeTensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// The free-form metadata of the files; where two have a key, the first one's.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The bytes of a tensor of this set, row-major, little-endian, not necessarily aligned.
    pub fn data(&self, info: &SafeTensorInfo) -> &[u8] {
        let file = self.files.get(info.file);
        file.and_then(|bytes| bytes.get(info.start..info.end)).unwrap_or_default()
    }

    /// Checks that the tensor's file is as long as when it was opened; to be called before its data are read.
    ///
    /// # Errors
    /// [`LoadError::Gguf`] with [`nanovllm_gguf::Error::Shortened`].
    pub fn check(&self, info: &SafeTensorInfo) -> Result<()> {
        self.files.get(info.file).map_or(Ok(()), |bytes| Ok(bytes.check_length()?))
    }

    /// The bytes of the tensor, which stay readable when this is dropped.
    pub(super) fn part(&self, info: &SafeTensorInfo) -> Option<FilePart> {
        FilePart::new(self.files.get(info.file)?, info.start..info.end)
    }

    /// Tells the system that the pages of the tensor are not needed for now.
    pub fn release(&self, info: &SafeTensorInfo) {
        if let Some(bytes) = self.files.get(info.file) {
            bytes.release(info.start..info.end);
        }
    }
}

/// Reads the header: where the data begin in the file, and what they are. Where it is malformed, the error is the reason.
///
/// It is parsed in a copy: another process may change a mapped file meanwhile, and text that was checked to be UTF-8 has to
/// stay so. What is copied is within the file and the format's limit.
fn header(bytes: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(SafeTensorError::HeaderTooSmall.to_string());
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&length| length <= MAX_HEADER);
    let Some(length) = length else { return Err(SafeTensorError::HeaderTooLarge.to_string()) };
    let Some(header) = rest.get(..length) else { return Err(SafeTensorError::InvalidHeaderLength.to_string()) };
    let mut text = Vec::new();
    text.try_reserve_exact(length).map_err(|_| format!("cannot allocate {length} bytes for the header"))?;
    text.extend_from_slice(header);
    let text = String::from_utf8(text).map_err(|e| SafeTensorError::InvalidHeader(e.utf8_error()).to_string())?;
    // What comes from the library's checks of the tensors has no place in the text.
    let wrong = |error: serde_json::Error| match error.line() {
        0 => error.to_string(),
        _ => SafeTensorError::InvalidHeaderDeserialization(error).to_string(),
    };
    let metadata: Metadata = serde_json::from_str(&text).map_err(wrong)?;
    // Of two entries with one name that library keeps the last.
    serde_json::from_str::<UniqueKeys>(&text).map_err(|error| error.to_string())?;
    // The tensors follow each other without gaps, which the library has checked.
    let len = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    if len != rest.len() - length {
        return Err(SafeTensorError::MetadataIncompleteBuffer.to_string());
    }
    Ok((bytes.len() - len, metadata))
}

/// A JSON object none of whose keys comes twice; the values are not kept.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if let Some(twice) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("{twice:?} appears twice in the header")));
            }
        }
        Ok(self)
    }
}

fn malformed(path: &Path, reason: String) -> LoadError {
    LoadError::SafeTensors { path: path.to_owned(), reason }
}

/// The name of the file that holds each tensor, from the index at `path`.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| malformed(path, e.to_string()))?;
    let Some(map) = json.get("weight_map").and_then(serde_json::Value::as_object).filter(|map| !map.is_empty()) else {
        return Err(malformed(path, "weight_map must name the file of each tensor".to_owned()));
    };
    let mut files = BTreeMap::new();
    for (name, file) in map {
        // A plain name: an index must not lead out of its directory.
        let plain = file.as_str().filter(|file| Path::new(file).file_name().is_some_and(|name| name == *file));
        let Some(file) = plain else {
            return Err(malformed(path, format!("tensor {name:?} is in {file}, which is no file of this directory")));
        };
        files.insert(name.clone(), file.to_owned());
    }
    Ok(files)
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
