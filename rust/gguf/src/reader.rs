//! A cursor over the header that never reads or reserves past its end.

use crate::error::Error;

/// The longest key or tensor name, from the format's rule for keys.
pub(crate) const NAME_LIMIT: u64 = 65_535;

/// Reads little-endian values from `bytes`; `what` names the thing read in errors.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Version 1 stores counts and lengths as u32, later ones as u64.
    narrow: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, narrow: false }
    }

    pub(crate) fn set_narrow(&mut self, narrow: bool) {
        self.narrow = narrow;
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// How many bytes a count or length takes in this version.
    pub(crate) fn count_size(&self) -> usize {
        if self.narrow { 4 } else { 8 }
    }

    pub(crate) fn bytes(&mut self, len: u64, what: &str) -> Result<&'a [u8], Error> {
        match usize::try_from(len).ok().and_then(|len| self.rest().get(..len)) {
            Some(taken) => {
                self.position += taken.len();
                Ok(taken)
            }
            None => {
                Err(Error::Truncated { what: what.to_owned(), offset: self.position, need: len, left: self.left() })
            }
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N as u64, what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count, length or dimension as the file claims it.
    pub(crate) fn size(&mut self, what: &str) -> Result<u64, Error> {
        if self.narrow { self.u32(what).map(u64::from) } else { self.u64(what) }
    }

    /// `count`, if the bytes left can hold as many entries of at least `each` bytes.
    pub(crate) fn fits(&self, count: u64, each: usize, what: &str) -> Result<usize, Error> {
        usize::try_from(count)
            .ok()
            .filter(|count| count.checked_mul(each).is_some_and(|bytes| bytes <= self.left()))
            .ok_or_else(|| Error::Count {
                what: what.to_owned(),
                offset: self.position,
                count,
                each,
                left: self.left(),
            })
    }

    /// A string value, with invalid UTF-8 replaced. Like that of a [`name`](Self::name) its text is copied before it is
    /// checked, for another process may change the bytes of a mapped file.
    pub(crate) fn string(&mut self, what: &str) -> Result<String, Error> {
        let len = self.size(what)?;
        let text = self.bytes(len, what)?.to_vec();
        Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// A key or a tensor name, which must be UTF-8, not empty and at most [`NAME_LIMIT`] bytes long.
    pub(crate) fn name(&mut self, what: &str) -> Result<String, Error> {
        let len = self.size(what)?;
        let (what_owned, offset) = (|| what.to_owned(), self.position);
        if len == 0 {
            return Err(Error::EmptyName { what: what_owned(), offset });
        }
        let text = self.bytes(len, what)?;
        if len > NAME_LIMIT {
            return Err(Error::NameTooLong { what: what_owned(), offset, len, limit: NAME_LIMIT });
        }
        String::from_utf8(text.to_vec()).map_err(|_| Error::Utf8 { what: what_owned(), offset })
    }
}
