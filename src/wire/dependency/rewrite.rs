//! Changing a descriptor on its way through.

use super::bits::BitWriter;
use super::{MANDATORY_BITS, Parsed, Structure};
use crate::wire::extension::MAX_ELEMENT_LEN;

/// Bits of the flags behind the mandatory fields.
const FLAG_BITS: usize = 5;
/// The flag that announces the active decode targets, and all flags behind it.
const TARGETS_FLAG: usize = MANDATORY_BITS + 1;

/// Adds `shift` to the frame number of the element `data`, in place: one outgoing stream that goes over from
/// one encoding to another keeps counting. Distances between frames stay as they are, so must gaps. Too short
/// an element is left alone.
pub fn shift_frame_number(data: &mut [u8], shift: u16) {
    if let [_, high, low, ..] = data {
        [*high, *low] = u16::from_be_bytes([*high, *low]).wrapping_add(shift).to_be_bytes();
    }
}

/// Writes the element `data` to `out` with `active` as its active decode targets, whether it had such a field
/// or not, and returns the new length, up to 9 bytes more than before.
///
/// `structure` is the one that the frame belongs to, unless the element brings its own. `None` when the
/// element is malformed, or when the result does not fit `out` or an element.
///
/// A receiver that knows the active targets does not wait for chains of layers that are left out (appendix
/// A.4). Browsers decode what arrives and need no such hint; a further forwarder does.
pub fn with_active_targets(
    data: &[u8],
    structure: Option<&Structure>,
    active: u32,
    out: &mut [u8],
) -> Option<usize> {
    let parsed = Parsed::read(data, structure).ok()?;
    let room = out.len().min(MAX_ELEMENT_LEN);
    let mut writer = BitWriter::new(&mut out[..room]);
    if data.len() * 8 > MANDATORY_BITS {
        writer.copy(data, 0..TARGETS_FLAG)?;
        writer.number(1, 1)?;
        writer.copy(data, TARGETS_FLAG + 1..parsed.targets_at)?;
    } else {
        writer.copy(data, 0..MANDATORY_BITS)?;
        writer.number(0b01000, FLAG_BITS)?;
    }
    writer.number(active, parsed.targets.into())?;
    writer.copy(data, parsed.rest)?;
    Some(writer.len())
}
