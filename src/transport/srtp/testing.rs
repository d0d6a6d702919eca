//! What the tests of this module share.

use super::{Keys, Profile};

/// Bytes from hexadecimal digits; blanks are ignored.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Keys that differ in every byte, so that a mix-up of directions or labels shows.
pub(super) fn keys(profile: Profile) -> Keys {
    let material: Vec<u8> = (0..profile.material_len()).map(|i| (i * 37 + 11) as u8).collect();
    Keys::from_dtls(profile, &material, true).expect("the profile's own length")
}
