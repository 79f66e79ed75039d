//! The parser of the tensor table, which checks every entry against the data section.

use std::collections::HashMap;

use crate::error::Error;
use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::tensor::TensorInfo;
use crate::types::GgmlType;
use crate::value::Value;

const MAX_DIMS: usize = 4;
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;

/// The tensors in file order, and each name's position among them.
pub(crate) struct Table {
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) index: HashMap<String, usize>,
}

/// The bytes of the shortest entry: a name of one byte and its length, one dimension, the type and the offset.
pub(crate) fn least_bytes(r: &Reader<'_>) -> usize {
    (r.count_size() + 1) + 4 + r.count_size() + 4 + 8
}

/// Reads `count` entries and places them in a file of `file_len` bytes.
pub(crate) fn parse(r: &mut Reader<'_>, count: u64, metadata: &Metadata, file_len: usize) -> Result<Table, Error> {
    let count = r.fits(count, least_bytes(r), "tensor table")?;
    let alignment = alignment(metadata)?;
    let mut table = Table { tensors: Vec::new(), index: HashMap::new() };
    for position in 0..count {
        let info = entry(r, alignment)?;
        if table.index.insert(info.name.clone(), position).is_some() {
            return Err(Error::DuplicateTensor { name: info.name });
        }
        table.tensors.push(info);
    }
    place(&mut table.tensors, r.position(), alignment, file_len)?;
    Ok(table)
}

/// `general.alignment`, checked, or the format's default.
pub(crate) fn alignment(metadata: &Metadata) -> Result<usize, Error> {
    let found = match metadata.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(alignment)) => *alignment,
        Some(other) => return Err(Error::Alignment { found: format!("of type {}", other.type_name()) }),
    };
    usize::try_from(found)
        .ok()
        .filter(|alignment| alignment.is_power_of_two())
        .ok_or_else(|| Error::Alignment { found: found.to_string() })
}

/// Reads one entry, whose `offset` is still relative to the data section.
fn entry(r: &mut Reader<'_>, alignment: usize) -> Result<TensorInfo, Error> {
    let name = r.name("tensor name")?;
    let what = &format!("table entry of tensor {name:?}");
    let rank = r.u32(what)?;
    check_rank(&name, rank)?;
    let mut claimed = Vec::with_capacity(MAX_DIMS);
    for _ in 0..rank {
        claimed.push(r.size(what)?);
    }
    let id = r.u32(what)?;
    let Some(dtype) = GgmlType::from_id(id) else {
        return Err(Error::TensorType { tensor: name, id });
    };
    let offset = r.u64(what)?;
    let (dims, len) = sized(&name, &claimed, dtype)?;
    if offset % alignment as u64 != 0 {
        return Err(Error::Misaligned { tensor: name, offset, alignment });
    }
    let Ok(offset) = usize::try_from(offset) else {
        return Err(Error::OutOfFile { tensor: name, offset, bytes: len, available: usize::MAX });
    };
    Ok(TensorInfo { name, dims, dtype, shard: 0, offset, len })
}

/// Refuses a number of dimensions the format does not allow.
fn check_rank(tensor: &str, rank: u32) -> Result<(), Error> {
    if rank == 0 || rank as usize > MAX_DIMS {
        return Err(Error::Dimensions { tensor: tensor.to_owned(), found: rank, limit: MAX_DIMS });
    }
    Ok(())
}

/// Checks the shape of a tensor, and works out the size of its data in bytes.
pub(crate) fn sized(tensor: &str, claimed: &[u64], dtype: GgmlType) -> Result<(Vec<usize>, usize), Error> {
    check_rank(tensor, u32::try_from(claimed.len()).unwrap_or(u32::MAX))?;
    let named = || tensor.to_owned();
    if let Some(dim) = claimed.iter().position(|&size| size == 0) {
        return Err(Error::ZeroDimension { tensor: named(), dim });
    }
    let too_large = || Error::TensorTooLarge { tensor: named(), dims: claimed.to_vec() };
    let (dims, elements) = shape(claimed).ok_or_else(too_large)?;
    let (row, block) = (dims[0], dtype.block_size());
    if row % block != 0 {
        return Err(Error::PartialBlock { tensor: named(), dtype, row, block });
    }
    let len = dtype.bytes_for(elements).ok_or_else(too_large)?;
    Ok((dims, len))
}

/// The dimensions and their product, unless one overflows.
fn shape(claimed: &[u64]) -> Option<(Vec<usize>, usize)> {
    let dims: Vec<usize> = claimed.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
    let elements = dims.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    Some((dims, elements))
}

/// Turns offsets into the data section into offsets into the file; every tensor must lie in the file, alone.
fn place(tensors: &mut [TensorInfo], header_end: usize, alignment: usize, file_len: usize) -> Result<(), Error> {
    // A file without tensors may end before its padding.
    let start = header_end.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    let available = file_len.saturating_sub(start);
    for info in tensors.iter_mut() {
        if info.offset.checked_add(info.len).is_none_or(|end| end > available) {
            let (tensor, offset) = (info.name.clone(), info.offset as u64);
            return Err(Error::OutOfFile { tensor, offset, bytes: info.len, available });
        }
        info.offset += start; // at most `file_len`
    }
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|info| info.offset);
    for pair in by_offset.windows(2) {
        if pair[0].offset + pair[0].len > pair[1].offset {
            return Err(Error::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone() });
        }
    }
    Ok(())
}
