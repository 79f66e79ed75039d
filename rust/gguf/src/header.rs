//! The magic number, the version, the counts and the metadata.

use crate::error::Error;
use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::table;
use crate::value::{Array, Value};

/// The most that the header and the tensor table may take, in bytes. The largest known (vocabularies of 256k tokens
/// with merges) are under 32 MiB; the limit keeps a crafted sparse file from being parsed into memory.
pub(crate) const LIMIT: usize = 256 << 20;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

/// What a file says before the tensor table.
pub(crate) struct Header {
    pub(crate) version: u32,
    /// How many tensors the file claims to have, which only the parser of the table can check.
    pub(crate) tensors: u64,
    pub(crate) metadata: Metadata,
}

pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Header, Error> {
    let start = &r.rest()[..r.rest().len().min(MAGIC.len())];
    if start != MAGIC {
        return Err(Error::NotGguf { found: start.to_vec() });
    }
    r.bytes(MAGIC.len() as u64, "magic number")?;
    let version = r.u32("version")?;
    if VERSIONS.contains(&version.swap_bytes()) {
        return Err(Error::BigEndian { version: version.swap_bytes() });
    }
    if !VERSIONS.contains(&version) {
        return Err(Error::Version { found: version });
    }
    r.set_narrow(version == 1);
    let tensors = r.size("tensor count")?;
    let pairs = r.size("metadata count")?;
    // Both counts are checked before either is used, so that a false number of tensors costs no parse of the metadata.
    r.fits(tensors, table::least_bytes(r), "tensor table")?;
    // The shortest pair: a key's length, a key of one byte, the value's type, a value of one byte.
    let pairs = r.fits(pairs, r.count_size() + 1 + 4 + 1, "metadata")?;
    let mut metadata = Metadata::default();
    for _ in 0..pairs {
        let key = r.name("metadata key")?;
        let value = value(r, &key)?;
        metadata.insert(key, value)?;
    }
    Ok(Header { version, tensors, metadata })
}

fn value(r: &mut Reader<'_>, key: &str) -> Result<Value, Error> {
    let what = &format!("value of metadata key {key:?}");
    Ok(match r.u32(what)? {
        0 => Value::U8(u8::from_le_bytes(r.array(what)?)),
        1 => Value::I8(i8::from_le_bytes(r.array(what)?)),
        2 => Value::U16(u16::from_le_bytes(r.array(what)?)),
        3 => Value::I16(i16::from_le_bytes(r.array(what)?)),
        4 => Value::U32(u32::from_le_bytes(r.array(what)?)),
        5 => Value::I32(i32::from_le_bytes(r.array(what)?)),
        6 => Value::F32(f32::from_le_bytes(r.array(what)?)),
        7 => Value::Bool(boolean(key, r.array(what)?)?),
        8 => Value::String(r.string(what)?),
        9 => Value::Array(array(r, key, what)?),
        10 => Value::U64(u64::from_le_bytes(r.array(what)?)),
        11 => Value::I64(i64::from_le_bytes(r.array(what)?)),
        12 => Value::F64(f64::from_le_bytes(r.array(what)?)),
        id => return Err(Error::ValueType { key: key.to_owned(), id }),
    })
}

fn array(r: &mut Reader<'_>, key: &str, what: &str) -> Result<Array, Error> {
    let id = r.u32(what)?;
    let count = r.size(what)?;
    Ok(match id {
        0 => Array::U8(elements(r, count, what, |b| Ok(u8::from_le_bytes(b)))?),
        1 => Array::I8(elements(r, count, what, |b| Ok(i8::from_le_bytes(b)))?),
        2 => Array::U16(elements(r, count, what, |b| Ok(u16::from_le_bytes(b)))?),
        3 => Array::I16(elements(r, count, what, |b| Ok(i16::from_le_bytes(b)))?),
        4 => Array::U32(elements(r, count, what, |b| Ok(u32::from_le_bytes(b)))?),
        5 => Array::I32(elements(r, count, what, |b| Ok(i32::from_le_bytes(b)))?),
        6 => Array::F32(elements(r, count, what, |b| Ok(f32::from_le_bytes(b)))?),
        7 => Array::Bool(elements(r, count, what, |b| boolean(key, b))?),
        8 => Array::String(strings(r, count, what)?),
        9 => return Err(Error::NestedArray { key: key.to_owned() }),
        10 => Array::U64(elements(r, count, what, |b| Ok(u64::from_le_bytes(b)))?),
        11 => Array::I64(elements(r, count, what, |b| Ok(i64::from_le_bytes(b)))?),
        12 => Array::F64(elements(r, count, what, |b| Ok(f64::from_le_bytes(b)))?),
        id => return Err(Error::ValueType { key: key.to_owned(), id }),
    })
}

fn boolean(key: &str, [byte]: [u8; 1]) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::Bool { key: key.to_owned(), found }),
    }
}

fn elements<const N: usize, T>(
    r: &mut Reader<'_>,
    count: u64,
    what: &str,
    decode: impl Fn([u8; N]) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = r.fits(count, N, what)?;
    let mut out = Vec::new();
    reserve(&mut out, count, what)?;
    let (chunks, _) = r.bytes((count * N) as u64, what)?.as_chunks::<N>();
    for &chunk in chunks {
        out.push(decode(chunk)?);
    }
    Ok(out)
}

fn strings(r: &mut Reader<'_>, count: u64, what: &str) -> Result<Vec<String>, Error> {
    let count = r.fits(count, r.count_size(), what)?;
    // A String is larger than the shortest string in the file, so the count alone must not size the vector.
    let mut out = Vec::new();
    reserve(&mut out, count.min(4096), what)?;
    for _ in 0..count {
        out.push(r.string(what)?);
    }
    Ok(out)
}

fn reserve<T>(out: &mut Vec<T>, count: usize, what: &str) -> Result<(), Error> {
    let bytes = count.saturating_mul(size_of::<T>());
    out.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { what: what.to_owned(), bytes })
}
