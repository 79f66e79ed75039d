//! The header and the table as bytes, which is what `crate::header` and `crate::table` parse.

use std::collections::HashSet;

use crate::error::Error;
use crate::header;
use crate::metadata::Metadata;
use crate::reader::NAME_LIMIT;
use crate::table;
use crate::tensor::TensorSpec;
use crate::value::{Array, Value};

const VERSION: u32 = 3;

/// The longest tensor name llama.cpp takes: its buffer of 64 bytes ends with a zero.
const TENSOR_NAME_LIMIT: u64 = 63;

/// The bytes before the data section, without the padding after them, and each tensor's size in bytes.
pub(super) fn encode(
    metadata: &Metadata,
    tensors: &[TensorSpec],
    alignment: usize,
) -> Result<(Vec<u8>, Vec<usize>), Error> {
    let mut out = Vec::new();
    out.extend(b"GGUF");
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        name(&mut out, "metadata key", key, NAME_LIMIT)?;
        out.extend(value.type_id().to_le_bytes());
        self::value(&mut out, value);
    }
    let mut seen = HashSet::new();
    let mut sizes = Vec::with_capacity(tensors.len());
    let mut offset = 0usize;
    for spec in tensors {
        if !seen.insert(&spec.name) {
            return Err(Error::DuplicateTensor { name: spec.name.clone() });
        }
        let claimed: Vec<u64> = spec.dims.iter().map(|&dim| dim as u64).collect();
        let (_, len) = table::sized(&spec.name, &claimed, spec.dtype)?;
        name(&mut out, "tensor name", &spec.name, TENSOR_NAME_LIMIT)?;
        out.extend((claimed.len() as u32).to_le_bytes());
        out.extend(claimed.iter().flat_map(|dim| dim.to_le_bytes()));
        out.extend((spec.dtype as u32).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        sizes.push(len);
        offset = offset
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| Error::TensorTooLarge { tensor: spec.name.clone(), dims: claimed })?;
    }
    if out.len() > header::LIMIT {
        return Err(Error::HeaderTooLarge { limit: header::LIMIT });
    }
    Ok((out, sizes))
}

fn name(out: &mut Vec<u8>, what: &str, name: &str, limit: u64) -> Result<(), Error> {
    let (what, offset, len) = (what.to_owned(), out.len(), name.len() as u64);
    if len == 0 {
        return Err(Error::EmptyName { what, offset });
    }
    if len > limit {
        return Err(Error::NameTooLong { what, offset, len, limit });
    }
    string(out, name);
    Ok(())
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => string(out, v),
        Value::Array(v) => array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.type_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U16(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I16(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|v| string(out, v)),
        Array::U64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
    }
}
