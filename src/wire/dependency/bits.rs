//! Numbers of any width, highest bit first.

use crate::wire::{Malformed, Result};

/// Reads bit by bit, never past the end.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Bits<'a> {
    /// Reading goes on at bit `position` of `data`.
    pub fn at(data: &'a [u8], position: usize) -> Self {
        Self { data, position }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn flag(&mut self) -> Result<bool> {
        let byte = self.data.get(self.position / 8).ok_or(Malformed)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit != 0)
    }

    /// A number of up to 32 bits.
    pub fn number(&mut self, width: usize) -> Result<u32> {
        debug_assert!(width <= 32);
        let mut value = 0;
        for _ in 0..width {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// A number below `count`, in as few bits as it needs (appendix A.8.1, `ns(n)`).
    pub fn below(&mut self, count: u32) -> Result<u32> {
        let width = (u32::BITS - count.leading_zeros()) as usize;
        let short = (1u32 << width) - count;
        let value = self.number(width.saturating_sub(1))?;
        if value < short {
            return Ok(value);
        }
        Ok((value << 1 | u32::from(self.flag()?)) - short)
    }

    pub fn skip(&mut self, width: usize) -> Result<()> {
        let position = self.position + width;
        if position > self.data.len() * 8 {
            return Err(Malformed);
        }
        self.position = position;
        Ok(())
    }
}

/// Writes bit by bit into a cleared buffer, never past the end.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut [u8],
    position: usize,
}

impl<'a> BitWriter<'a> {
    /// Clears `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        out.fill(0);
        Self { out, position: 0 }
    }

    /// The lowest `width` bits of `value`; `None` when they do not fit.
    pub fn number(&mut self, value: u32, width: usize) -> Option<()> {
        for shift in (0..width).rev() {
            let byte = self.out.get_mut(self.position / 8)?;
            *byte |= ((value >> shift & 1) as u8) << (7 - self.position % 8);
            self.position += 1;
        }
        Some(())
    }

    /// Bits `range` of `data`.
    pub fn copy(&mut self, data: &[u8], range: core::ops::Range<usize>) -> Option<()> {
        let mut bits = Bits::at(data, range.start);
        for _ in range {
            let bit = bits.flag().ok()?;
            self.number(bit.into(), 1)?;
        }
        Some(())
    }

    /// Whole bytes written so far.
    pub fn len(&self) -> usize {
        self.position.div_ceil(8)
    }
}
