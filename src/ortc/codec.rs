//! Which codec is meant, and whether two descriptions mean the same.

use serde_json::Value;

use super::types::{Parameters, RtpCodecCapability, RtpCodecParameters};
use crate::id::{Codec, MediaKind, PayloadType};

/// The parameter by which RTX names the codec that it repairs (RFC 4588 §8.6).
pub(super) const APT: &str = "apt";
/// H.264's profile and level (RFC 6184 §8.1).
pub(super) const PROFILE_LEVEL_ID: &str = "profile-level-id";

/// What decides whether two codec descriptions match.
#[derive(Clone, Copy)]
pub(super) struct Description<'a> {
    pub mime_type: &'a str,
    pub clock_rate: u32,
    pub channels: Option<u8>,
    pub parameters: &'a Parameters,
}

impl RtpCodecCapability {
    pub(super) fn description(&self) -> Description<'_> {
        Description {
            mime_type: &self.mime_type,
            clock_rate: self.clock_rate,
            channels: self.channels,
            parameters: &self.parameters,
        }
    }
}

impl RtpCodecParameters {
    pub(super) fn description(&self) -> Description<'_> {
        Description {
            mime_type: &self.mime_type,
            clock_rate: self.clock_rate,
            channels: self.channels,
            parameters: &self.parameters,
        }
    }
}

impl Description<'_> {
    /// Whether a stream of one can be taken for a stream of the other.
    pub fn matches(self, other: Description) -> bool {
        self.mime_type.eq_ignore_ascii_case(other.mime_type)
            && self.clock_rate == other.clock_rate
            && self.channels == other.channels
            && self.parameters_match(other)
    }

    fn parameters_match(self, other: Description) -> bool {
        let same = |name| {
            let (own, others) = (number(self.parameters, name), number(other.parameters, name));
            own.is_some() && own == others
        };
        match from_mime_type(self.mime_type) {
            Some(Codec::H264) => {
                let (own, others) =
                    (H264Format::of(self.parameters), H264Format::of(other.parameters));
                // RFC 6184 §8.2.2: the packetization mode is used symmetrically, and so is the profile.
                same("packetization-mode")
                    && matches!((own, others), (Some(a), Some(b)) if a.profile == b.profile)
            }
            // RFC 9628 §7: a stream has one profile, 0 if nothing is said.
            Some(Codec::Vp9) => same("profile-id"),
            // AV1 RTP specification §7.2.1: likewise.
            Some(Codec::Av1) => same("profile"),
            Some(Codec::Opus | Codec::Vp8) | None => true,
        }
    }
}

/// `audio` or `video` if `mime_type` begins so and goes on with a subtype.
pub(super) fn kind_of_mime_type(mime_type: &str) -> Option<MediaKind> {
    match mime_type.split_once('/')? {
        (_, "") => None,
        (kind, _) if kind.eq_ignore_ascii_case("audio") => Some(MediaKind::Audio),
        (kind, _) if kind.eq_ignore_ascii_case("video") => Some(MediaKind::Video),
        _ => None,
    }
}

/// The media codec that `mime_type` names, if Shardcast forwards it.
pub(super) fn from_mime_type(mime_type: &str) -> Option<Codec> {
    let all = [Codec::Av1, Codec::H264, Codec::Opus, Codec::Vp8, Codec::Vp9];
    all.into_iter().find(|&codec| mime_type.eq_ignore_ascii_case(mime_type_of(codec)))
}

/// The usual spelling of the codec's MIME type.
pub fn mime_type_of(codec: Codec) -> &'static str {
    match codec {
        Codec::Av1 => "video/AV1",
        Codec::H264 => "video/H264",
        Codec::Opus => "audio/opus",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
    }
}

/// Whether `mime_type` is `audio/rtx` or `video/rtx`.
pub(super) fn is_rtx(mime_type: &str) -> bool {
    mime_type.split_once('/').is_some_and(|(_, subtype)| subtype.eq_ignore_ascii_case("rtx"))
}

/// The payload type that `apt` names.
pub(super) fn apt(parameters: &Parameters) -> Option<PayloadType> {
    let apt = parameters.get(APT)?.as_u64()?;
    u8::try_from(apt).ok().filter(|&apt| apt < 128).map(PayloadType)
}

/// The level that a sender of `own` may use towards `router`: `None` to leave it as it is.
///
/// RFC 6184 §8.2.2: without `level-asymmetry-allowed` on both sides, the lower level binds both.
pub(super) fn lowered_profile_level_id(own: &Parameters, router: &Parameters) -> Option<Value> {
    let asymmetric = |parameters| number(parameters, "level-asymmetry-allowed") == Some(1);
    let (from, to) = (H264Format::of(own)?, H264Format::of(router)?);
    let lower = from.level > to.level && !(asymmetric(own) && asymmetric(router));
    lower.then(|| router.get(PROFILE_LEVEL_ID).cloned()).flatten()
}

/// A parameter that may be written as a number or as digits; 0 when absent, `None` if neither.
fn number(parameters: &Parameters, name: &str) -> Option<u64> {
    match parameters.get(name) {
        None => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    }
}

/// What `profile-level-id` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct H264Format {
    profile: H264Profile,
    /// `level_idc`: ten times the level. Level 1b may count as 1.1 here, far below any limit of ours.
    level: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    High,
    ConstrainedHigh,
    PredictiveHigh444,
}

impl H264Format {
    /// What browsers assume when nothing is said: constrained baseline, level 3.1. (RFC 6184 §8.1
    /// has baseline, level 1, but nobody sends so little.)
    const DEFAULT: Self = Self { profile: H264Profile::ConstrainedBaseline, level: 31 };

    fn of(parameters: &Parameters) -> Option<Self> {
        match parameters.get(PROFILE_LEVEL_ID) {
            None => Some(Self::DEFAULT),
            Some(Value::String(text)) => Self::parse(text),
            // SDP parsers turn "420010" into a number.
            Some(value) => Self::parse(&value.as_u64()?.to_string()),
        }
    }

    /// Three bytes in hexadecimal: `profile_idc`, `profile-iop`, `level_idc`.
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, idc, iop, level] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        // The lower half of `profile-iop` is reserved, except for the high profiles' constraints.
        // RFC 6184 §8.1, table 5.
        let profile = match (idc, iop) {
            (0x42, iop) if iop & 0x4f == 0x40 => H264Profile::ConstrainedBaseline,
            (0x4d, iop) if iop & 0x8f == 0x80 => H264Profile::ConstrainedBaseline,
            (0x58, iop) if iop & 0xcf == 0xc0 => H264Profile::ConstrainedBaseline,
            (0x42, iop) if iop & 0x4f == 0x00 => H264Profile::Baseline,
            (0x58, iop) if iop & 0xcf == 0x80 => H264Profile::Baseline,
            (0x4d, iop) if iop & 0xaf == 0x00 => H264Profile::Main,
            (0x64, 0x00) => H264Profile::High,
            (0x64, 0x0c) => H264Profile::ConstrainedHigh,
            (0xf4, 0x00) => H264Profile::PredictiveHigh444,
            _ => return None,
        };
        Some(Self { profile, level })
    }
}
