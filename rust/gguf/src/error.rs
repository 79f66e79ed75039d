//! What can be wrong with a GGUF file, or with a request for part of one.

use std::path::{Path, PathBuf};

use crate::types::GgmlType;

/// An error of this crate. Offsets and sizes are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another error, with the file it happened in.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The operating system could not open or read the file.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
    /// The operating system could not make or write the file.
    #[error("cannot write: {0}")]
    Write(std::io::Error),
    /// A directory, pipe or device.
    #[error("not a regular file")]
    NotAFile,
    /// The magic number is missing.
    #[error("not a GGUF file: it begins with {:?}, not \"GGUF\"", String::from_utf8_lossy(found))]
    NotGguf {
        /// The first bytes, at most 4.
        found: Vec<u8>,
    },
    /// The version makes sense only byte-swapped.
    #[error("big-endian GGUF (version {version}, byte-swapped); only little-endian files can be read")]
    BigEndian {
        /// The version once its bytes are swapped.
        version: u32,
    },
    /// A version this crate does not know.
    #[error("GGUF version {found} is not supported; versions 1, 2 and 3 are")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// A count that the rest of the file cannot hold.
    #[error(
        "{what}: {count} entries of at least {each} bytes claimed at byte {offset}, but only {left} bytes are left"
    )]
    Count {
        /// What is counted, for example "tensor table".
        what: String,
        /// Where the entries would begin.
        offset: usize,
        /// The count claimed.
        count: u64,
        /// The size of the smallest entry there can be.
        each: usize,
        /// The bytes left in the file.
        left: usize,
    },
    /// A read past the end.
    #[error("{what}: {need} bytes needed at byte {offset}, but only {left} are left (truncated file or wrong length)")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where the read begins.
        offset: usize,
        /// The bytes to be read.
        need: u64,
        /// The bytes left in the file.
        left: usize,
    },
    /// The header runs on past the limit for headers.
    #[error("the header (metadata and tensor table) is larger than the limit of {limit} bytes")]
    HeaderTooLarge {
        /// The largest size allowed.
        limit: usize,
    },
    /// A key or a tensor name that is not UTF-8.
    #[error("{what} at byte {offset} is not valid UTF-8")]
    Utf8 {
        /// What was being read.
        what: String,
        /// Where its text begins.
        offset: usize,
    },
    /// An empty key or tensor name.
    #[error("{what} before byte {offset} is empty")]
    EmptyName {
        /// What was being read.
        what: String,
        /// Where its text would begin.
        offset: usize,
    },
    /// A key or tensor name longer than the format allows.
    #[error("{what} at byte {offset} is {len} bytes long; the limit is {limit}")]
    NameTooLong {
        /// What was being read.
        what: String,
        /// Where its text begins.
        offset: usize,
        /// Its length.
        len: u64,
        /// The greatest length allowed.
        limit: u64,
    },
    /// Two metadata entries share a key.
    #[error("metadata key {key:?} appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Two tensors share a name.
    #[error("tensor {name:?} appears twice")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A metadata value type that the format does not define.
    #[error("metadata key {key:?} has unknown value type {id} (0 to 12 are defined)")]
    ValueType {
        /// The key.
        key: String,
        /// The type number.
        id: u32,
    },
    /// An array of arrays.
    #[error("metadata key {key:?} is an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A bool that is stored as neither 0 nor 1.
    #[error("metadata key {key:?} holds a bool stored as {found}; only 0 and 1 are valid")]
    Bool {
        /// The key.
        key: String,
        /// The byte that is stored.
        found: u8,
    },
    /// `general.alignment` is unusable.
    #[error("general.alignment is {found}; it must be a u32 and a power of two")]
    Alignment {
        /// What the file says instead.
        found: String,
    },
    /// A tensor of no or too many dimensions.
    #[error("tensor {tensor:?} has {found} dimensions; 1 to {limit} are supported")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its number of dimensions.
        found: u32,
        /// The greatest number supported.
        limit: usize,
    },
    /// A dimension of size zero.
    #[error("tensor {tensor:?} has size 0 in dimension {dim}")]
    ZeroDimension {
        /// The tensor.
        tensor: String,
        /// The dimension, innermost first.
        dim: usize,
    },
    /// A shape whose size cannot be expressed.
    #[error("tensor {tensor:?}: the size of shape {dims:?} overflows")]
    TensorTooLarge {
        /// The tensor.
        tensor: String,
        /// Its shape, innermost first.
        dims: Vec<u64>,
    },
    /// A number of an element type that ggml does not define, or no longer does.
    #[error("tensor {tensor:?} has unknown element type {id}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type number.
        id: u32,
    },
    /// A row that is not whole blocks.
    #[error("tensor {tensor:?}: rows of {row} elements are not whole blocks of {dtype} ({block} elements)")]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: GgmlType,
        /// Elements in a row.
        row: usize,
        /// Elements in a block.
        block: usize,
    },
    /// A tensor that does not begin on the file's alignment.
    #[error("tensor {tensor:?}: offset {offset} is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The alignment.
        alignment: usize,
    },
    /// A tensor whose data lie past the end of the file.
    #[error(
        "tensor {tensor:?}: {bytes} bytes at offset {offset} lie outside the data section of {available} bytes (truncated file?)"
    )]
    OutOfFile {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// Its size.
        bytes: usize,
        /// The size of the data section.
        available: usize,
    },
    /// Two tensors that share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },
    /// The file has become shorter since it was opened.
    #[error("the file was {was} bytes long when it was opened and is {now} now; it must not be changed while in use")]
    Shortened {
        /// Its length when it was opened.
        was: u64,
        /// Its length now.
        now: u64,
    },
    /// A shard of a split model whose name does not say where the others are.
    #[error(
        "this is shard {shard} of a model split in {count}, so its name must end in \"-{shard:05}-of-{count:05}.gguf\""
    )]
    SplitName {
        /// The shard's number, from 1.
        shard: u64,
        /// How many shards the model has.
        count: u64,
    },
    /// A shard of a split model that is not there.
    #[error("shard {shard} of the {count} that hold the model is missing")]
    MissingShard {
        /// The shard's number, from 1.
        shard: u64,
        /// How many shards the model has.
        count: u64,
    },
    /// A shard whose metadata do not fit those of the others.
    #[error("metadata key {key:?} is {found}, but the shards of the model make it {expected}")]
    SplitMismatch {
        /// The key.
        key: &'static str,
        /// The value that fits.
        expected: u64,
        /// The value found.
        found: u64,
    },
    /// Two shards share a tensor's name.
    #[error("tensor {name:?} is in {} too", other.display())]
    DuplicateAcrossShards {
        /// The name.
        name: String,
        /// The earlier shard's file.
        other: PathBuf,
    },
    /// Data were given to a writer for another tensor than the one whose turn it is.
    #[error("data of tensor {got:?} where {} were expected", expected.as_ref().map_or("none".to_owned(), |name| format!("those of {name:?}")))]
    WriteOrder {
        /// The tensor whose turn it is; none when all are complete.
        expected: Option<String>,
        /// The tensor given.
        got: String,
    },
    /// More or fewer bytes for a tensor than its shape and type take.
    #[error("tensor {tensor:?} takes {expected} bytes, got {got}")]
    WriteSize {
        /// The tensor.
        tensor: String,
        /// The size declared.
        expected: usize,
        /// The bytes given in all, the refused ones included.
        got: usize,
    },
    /// A file finished before its data were complete.
    #[error("the file is not complete: {missing} tensors lack data, the first is {tensor:?}")]
    Unfinished {
        /// The first tensor that lacks data.
        tensor: String,
        /// How many tensors lack data.
        missing: usize,
    },
    /// A metadata key that is needed and absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value of another type than needed.
    #[error("metadata key {key:?}: expected {expected}, got {got}")]
    WrongType {
        /// The key.
        key: String,
        /// The type needed.
        expected: &'static str,
        /// The type found.
        got: &'static str,
    },
    /// A metadata integer that does not fit.
    #[error("metadata key {key:?}: {value} does not fit {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value found.
        value: i128,
        /// The type it must fit.
        expected: &'static str,
    },
    /// An element type that cannot be read or cannot be written.
    #[error("{what} is not supported for tensors of type {dtype}")]
    UnsupportedType {
        /// "quantisation" or "dequantisation".
        what: &'static str,
        /// The element type.
        dtype: GgmlType,
    },
    /// A buffer whose size does not match.
    #[error("{dtype}: {what} of {got}, expected {expected}")]
    Length {
        /// The element type.
        dtype: GgmlType,
        /// What was measured, and its unit.
        what: &'static str,
        /// The right size, or the rule for it.
        expected: String,
        /// The size of the buffer given.
        got: usize,
    },
    /// Values a block format cannot hold.
    #[error("{dtype}: block {block} holds a value that is not finite, or its scale overflows f16")]
    Unquantisable {
        /// The block format.
        dtype: GgmlType,
        /// The block's index.
        block: usize,
    },
    /// The system has not enough memory.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// Its size.
        bytes: usize,
    },
}

impl Error {
    /// The same error, naming the file it happened in; the innermost path is kept.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::InFile { .. } => self,
            error => Self::InFile { path: path.to_path_buf(), error: Box::new(error) },
        }
    }

    /// The error itself, without the file it happened in.
    pub fn kind(&self) -> &Self {
        match self {
            Self::InFile { error, .. } => error.kind(),
            error => error,
        }
    }
}
