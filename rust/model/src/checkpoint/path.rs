//! What a model's path leads to, and what to pass instead where it leads to something beside the model.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{LoadError, Result};

/// How many GGUF files an error names.
const MAX_SHOWN: usize = 4;

/// What a model's path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPath {
    /// A Hugging Face directory, which may lack a file.
    Directory,
    /// A file, which may be no GGUF file.
    Gguf,
}

impl ModelPath {
    /// Looks at what is at `path`.
    ///
    /// # Errors
    /// [`LoadError::NotAModel`] for a path where nothing is, for a file of a model in a directory, and for a directory
    /// without safetensors files that has GGUF files; [`LoadError::Io`] for a directory without config.json. They say
    /// what to pass instead.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return check_directory(path).map(|()| Self::Directory);
        }
        let refused = |reason| Err(LoadError::NotAModel { path: path.to_owned(), reason });
        if !path.exists() {
            return refused("no such file or directory".to_owned());
        }
        // A name proves nothing of a file that says what it is.
        if is_gguf(path) {
            return Ok(Self::Gguf);
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors" | "json") => {
                refused(format!("a file of a model, not a whole one; pass {}, its directory", directory.display()))
            }
            Some("bin" | "pt" | "pth") => refused(
                "a PyTorch checkpoint, which cannot be read; pass a directory with safetensors files or a GGUF file"
                    .to_owned(),
            ),
            _ => Ok(Self::Gguf),
        }
    }
}

fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}

/// Refuses a directory that lacks config.json, or has GGUF files instead of safetensors.
fn check_directory(dir: &Path) -> Result<()> {
    let files = |extension| -> Result<Vec<PathBuf>> {
        let io = |source| LoadError::Io { path: dir.to_owned(), source };
        let entries = fs::read_dir(dir).map_err(io)?.collect::<io::Result<Vec<_>>>().map_err(io)?;
        let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == extension) && path.is_file());
        paths.sort();
        Ok(paths)
    };
    let hint = match files("gguf")?.as_slice() {
        [] => "pass a directory with config.json and safetensors files, or the path of a GGUF file".to_owned(),
        all @ [first, ..] => {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let shown = all.iter().take(MAX_SHOWN).map(name).collect::<Vec<_>>().join(", ");
            let more = if all.len() > MAX_SHOWN { ", ..." } else { "" };
            format!("this directory has GGUF files ({shown}{more}): pass the path of one, such as {}", first.display())
        }
    };
    let config = dir.join("config.json");
    if !config.exists() {
        let source = io::Error::new(ErrorKind::NotFound, format!("no such file; {hint}"));
        return Err(LoadError::Io { path: config, source });
    }
    if files("safetensors")?.is_empty() {
        let reason = format!("no *.safetensors file in this directory; {hint}");
        return Err(LoadError::NotAModel { path: dir.to_owned(), reason });
    }
    Ok(())
}
