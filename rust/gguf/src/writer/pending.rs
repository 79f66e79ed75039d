//! A file that gets its name only when it is complete.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::Error;

/// A temporary file beside the one that it is to become. It is deleted when it is dropped.
pub struct PendingFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl PendingFile {
    /// Begins the file that is to be at `path`.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        // Renaming over a directory or device fails only after all the data are written.
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(Error::NotAFile);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".gguf.part");
        #[cfg(unix)]
        {
            // What any new file has: readable by whom the umask lets, not by the owner alone.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder).map_err(Error::Write)?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), path: path.to_owned() })
    }

    /// Where the file is to be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name. The data reach the disk first, so that no crash leaves an empty file of that name.
    pub(super) fn publish(self) -> Result<(), Error> {
        let file = self.file.into_inner().map_err(|failed| Error::Write(failed.into_error()))?;
        file.as_file().sync_all().map_err(Error::Write)?;
        file.persist(&self.path).map_err(|failed| Error::Write(failed.error))?;
        Ok(())
    }
}

impl Write for PendingFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
