//! Reading and writing little-endian fields of a byte string, without panics on bad input.

use alloc::vec::Vec;

/// The input ended before the field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// A cursor over bytes that somebody else wrote.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all has been read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A byte string behind its length in one byte.
    #[inline]
    pub fn short_bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let len = usize::from(self.u8()?);
        self.bytes(len)
    }

    /// A byte string behind its length in two bytes.
    #[inline]
    pub fn long_bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let len = usize::from(self.u16()?);
        self.bytes(len)
    }
}

/// Appends fields to a byte vector; the counterpart of [`Reader`].
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes, little-endian.
    fn put_u16(&mut self, value: u16);
    /// Four bytes, little-endian.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes, little-endian.
    fn put_u64(&mut self, value: u64);
    /// A byte string behind its length in one byte; at most 255 bytes.
    fn put_short_bytes(&mut self, bytes: &[u8]);
    /// A byte string behind its length in two bytes; at most 65535 bytes.
    fn put_long_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_short_bytes(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 0xFF, "a short byte string holds 255 bytes");
        self.push(bytes.len() as u8);
        self.extend_from_slice(bytes);
    }

    fn put_long_bytes(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 0xFFFF, "a long byte string holds 65535 bytes");
        self.put_u16(bytes.len() as u16);
        self.extend_from_slice(bytes);
    }
}
