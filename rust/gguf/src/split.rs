//! Split models: files `NAME-00001-of-0000N.gguf` that hold one model together.
//!
//! Each shard is a GGUF file of its own with `split.no` (from 0), `split.count` and `split.tensors.count` (of the whole
//! model) in its metadata; the other metadata are in the first. llama.cpp's `gguf-split` and the Python package `gguf`
//! write them.

use std::path::Path;

use crate::error::Error;
use crate::metadata::Metadata;
use crate::shard::Shard;

/// A file's place in a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    no: u64,
    count: u64,
    tensors: u64,
}

/// The keys of [`Place`]; a file that holds the whole model needs none.
pub(crate) const KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

impl Place {
    /// What the metadata of a shard say.
    fn of(metadata: &Metadata) -> Result<Self, Error> {
        let [no, count, tensors] = KEYS.map(|key| metadata.u64(key));
        Ok(Self { count: count?, no: no?, tensors: tensors? })
    }

    fn values(self) -> [u64; 3] {
        [self.no, self.count, self.tensors]
    }

    /// Refuses a file whose place is not this one.
    fn check(self, found: Self) -> Result<(), Error> {
        for ((key, expected), found) in KEYS.iter().zip(self.values()).zip(found.values()) {
            if expected != found {
                return Err(Error::SplitMismatch { key, expected, found });
            }
        }
        Ok(())
    }
}

/// All shards of the model that `shard`, opened at `path`, belongs to, in order.
///
/// A file without split metadata is alone, whatever its name; any shard leads to the others.
pub(crate) fn complete(path: &Path, shard: Shard) -> Result<Vec<Shard>, Error> {
    let count = shard.header.metadata.opt_u64(KEYS[1]).map_err(|error| error.in_file(path))?;
    // llama.cpp writes 0 into a model it has merged.
    if count.is_none_or(|count| count <= 1) {
        return Ok(vec![shard]);
    }
    let opened = Place::of(&shard.header.metadata).map_err(|error| error.in_file(path))?;
    let stem = stem(path, opened)
        .ok_or_else(|| Error::SplitName { shard: opened.no.saturating_add(1), count: opened.count }.in_file(path))?;
    let mut given = Some(shard);
    let mut shards = Vec::new();
    for no in 0..opened.count {
        let expected = Place { no, ..opened };
        shards.push(if let Some(shard) = given.take_if(|_| no == opened.no) {
            shard
        } else {
            let path = path.with_file_name(format!("{stem}{}", suffix(expected)));
            let shard = open(&path, expected)?;
            let found = Place::of(&shard.header.metadata);
            found.and_then(|found| expected.check(found)).map_err(|error| error.in_file(&path))?;
            shard
        });
    }
    let found: usize = shards.iter().map(|shard| shard.table.tensors.len()).sum();
    if found as u64 != opened.tensors {
        let error = Error::SplitMismatch { key: KEYS[2], expected: found as u64, found: opened.tensors };
        return Err(error.in_file(path));
    }
    Ok(shards)
}

/// What the file name of the shard at `place` ends with.
fn suffix(place: Place) -> String {
    format!("-{:05}-of-{:05}.gguf", place.no.saturating_add(1), place.count)
}

/// The part of the file name that all shards share, if the name is the one that `place` asks for.
fn stem(path: &Path, place: Place) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    (place.no < place.count).then(|| name.strip_suffix(&suffix(place)))?.map(str::to_owned)
}

/// Opens the shard at `place`.
fn open(path: &Path, place: Place) -> Result<Shard, Error> {
    let missing = |error: &Error| matches!(error.kind(), Error::Io(e) if e.kind() == std::io::ErrorKind::NotFound);
    Shard::open(path).map_err(|error| match error {
        error if missing(&error) => Error::MissingShard { shard: place.no + 1, count: place.count }.in_file(path),
        error => error,
    })
}
