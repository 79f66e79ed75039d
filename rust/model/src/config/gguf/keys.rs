//! Typed look-ups in the metadata of a GGUF file.

use nanovllm_gguf::{Array, GgufFile, Metadata, TensorView, Value};

use crate::config::settings::{Settings, check_cap};
use crate::error::{LoadError, Result};

/// The metadata of a file with typed look-ups, by keys without the architecture's name that they begin with. Those that
/// return an option give `None` where the key is missing; an error names the key.
pub(crate) struct Keys<'a> {
    pub(super) file: &'a GgufFile,
    pub(super) metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(file: &'a GgufFile, architecture: &'a str) -> Self {
        Self { file, metadata: file.metadata(), architecture }
    }

    /// The whole name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(crate) fn usize(&self, key: &str) -> Result<usize> {
        Ok(usize::try_from(self.metadata.u64(&self.name(key))?).unwrap_or(usize::MAX))
    }

    pub(crate) fn opt(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.metadata.opt_u64(&self.name(key))?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// The tensor of this name.
    pub(super) fn tensor(&self, name: &str) -> Option<TensorView<'a>> {
        self.file.tensor(name)
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensor(tensor).is_some()
    }

    /// A number that a file gives once or for each layer; of a list the first.
    pub(crate) fn first_of_layers(&self, key: &str) -> Result<Option<usize>> {
        match self.list(key)? {
            None => self.opt(key),
            Some(list) => Ok(list.first().copied()),
        }
    }

    /// Such a number for each of `layers` layers.
    ///
    /// # Errors
    /// [`LoadError::Config`] for a list of another length.
    pub(crate) fn of_layers(&self, key: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        match self.list(key)? {
            None => Ok(self.opt(key)?.map(|value| vec![value; layers])),
            Some(list) if list.len() == layers => Ok(Some(list)),
            Some(list) => {
                let (key, got) = (self.name(key), list.len());
                Err(LoadError::Config(format!("{key} has {got} entries for {layers} layers")))
            }
        }
    }

    /// The list of non-negative integers under `key`; `None` where there is none, or another value.
    fn list(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let name = self.name(key);
        let Some(Value::Array(array)) = self.metadata.get(&name) else { return Ok(None) };
        let list = match array {
            Array::U32(list) => list.iter().map(|&n| n as usize).collect(),
            Array::I32(list) if list.iter().all(|&n| n >= 0) => list.iter().map(|&n| n as usize).collect(),
            _ => return Err(LoadError::Config(format!("{name} must be a number, or a list of one for each layer"))),
        };
        Ok(Some(list))
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        Ok(self.metadata.opt_bool(&self.name(key))?)
    }

    /// The list of booleans under `key`; `None` where there is none, or another value.
    pub(crate) fn bools(&self, key: &str) -> Option<&'a [bool]> {
        match self.metadata.get(&self.name(key)) {
            Some(Value::Array(Array::Bool(list))) => Some(list),
            _ => None,
        }
    }

    /// Refuses layers that differ in their heads or in the width of their MLP.
    pub(super) fn check_equal_layers(&self, layers: usize) -> Result<()> {
        for key in ["attention.head_count_kv", "feed_forward_length"] {
            let list = self.of_layers(key, layers)?.unwrap_or_default();
            if list.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(self.unsupported(key, "not the same in all layers"));
            }
        }
        Ok(())
    }

    /// Refuses values of another width than keys.
    pub(crate) fn check_values(&self, head_dim: usize) -> Result<()> {
        self.check_width("attention.value_length", head_dim)
    }

    /// Refuses heads that are rotated in part.
    pub(crate) fn check_whole_heads(&self, head_dim: usize) -> Result<()> {
        self.rotated_dims(head_dim)?; // more than there are is another mistake
        self.check_width("rope.dimension_count", head_dim)
    }

    /// Refuses heads of layers with a window that are not as wide, or not rotated as far, as those of other layers.
    pub(crate) fn check_equal_windows(&self, head_dim: usize) -> Result<()> {
        ["rope.dimension_count_swa", "attention.key_length_swa", "attention.value_length_swa"]
            .iter()
            .try_for_each(|key| self.check_width(key, head_dim))
    }

    fn check_width(&self, key: &str, head_dim: usize) -> Result<()> {
        match self.opt(key)?.filter(|&n| n != head_dim) {
            None => Ok(()),
            Some(value) => {
                let key = self.name(key);
                let reason = format!("{key} of {value} beside heads of {head_dim}; they must be equal");
                Err(LoadError::Unsupported(reason))
            }
        }
    }

    /// Refuses the metadata that there is no code for, and gives the names of those that nobody knows.
    pub(crate) fn check_settings(&self, settings: Settings) -> Result<Vec<String>> {
        let prefix = self.name("");
        let own = self.metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)));
        settings.check(own, &prefix)
    }

    pub(super) fn f32(&self, key: &str) -> Result<f32> {
        Ok(self.metadata.f32(&self.name(key))?)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.metadata.opt_f32(&self.name(key))?.map(f64::from))
    }

    /// The bound of scores or of logits under `key`; zero stands for none.
    ///
    /// # Errors
    /// [`LoadError::Config`] for one that is not positive.
    pub(crate) fn soft_cap(&self, key: &str) -> Result<Option<f32>> {
        let cap = self.f64(key)?.filter(|&cap| cap != 0.0);
        cap.map(|cap| check_cap(&self.name(key), cap)).transpose()
    }

    pub(crate) fn unsupported(&self, key: &str, what: impl std::fmt::Display) -> LoadError {
        LoadError::Unsupported(format!("{} is {what}", self.name(key)))
    }
}
