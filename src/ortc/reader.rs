//! From JSON to the types, field by field: every error names the JSON path.
//!
//! What is wrong in itself is refused here (type, range, length); how the fields fit together is
//! checked by [`super::produce()`]. As in mediasoup, `null` and a missing field are the same; unlike in
//! mediasoup, an optional field of the wrong type is an error and not silently replaced.

use serde_json::{Map, Number, Value};

use super::codec;
use super::types::*;
use crate::id::{MAX_LABEL_LEN, MediaKind, Mid, PayloadType, Rid, Ssrc};

/// Most codecs in one list: there are no more payload types.
const MAX_CODECS: usize = 128;
/// Most header extensions in one list: browsers know about 20, once for each media kind.
const MAX_HEADER_EXTENSIONS: usize = 64;
/// Most encodings of one producer: browsers send at most 3, one is to spare.
const MAX_ENCODINGS: usize = 4;
/// Most feedback entries of one codec: browsers list 5.
const MAX_FEEDBACK: usize = 32;
/// Most parameters of one codec or header extension: the longest list in use (H.264's) has about 25.
const MAX_PARAMETERS: usize = 64;
/// Longest text, in bytes; only H.264's parameter sets in base64 come near.
const MAX_TEXT: usize = 1024;
/// Longest CNAME, in bytes: what an SDES item can carry (RFC 3550 §6.5).
const MAX_CNAME: usize = 255;
/// Longest part of a client's own key that is repeated in an error, in characters.
const MAX_SHOWN_KEY: usize = 40;

impl TryFrom<Value> for RtpParameters {
    type Error = Invalid;
    fn try_from(value: Value) -> Result<Self, Invalid> {
        parameters(&Node::root("rtpParameters", &value))
    }
}

impl TryFrom<Value> for RtpCapabilities {
    type Error = Invalid;
    fn try_from(value: Value) -> Result<Self, Invalid> {
        capabilities(&Node::root("rtpCapabilities", &value))
    }
}

fn parameters(node: &Node) -> Result<RtpParameters, Invalid> {
    node.object()?;
    let codecs = node.field("codecs");
    codecs.required()?;
    Ok(RtpParameters {
        mid: node.label("mid", Mid::new)?,
        codecs: codecs.list(MAX_CODECS, codec_parameters)?,
        header_extensions: node
            .field("headerExtensions")
            .list(MAX_HEADER_EXTENSIONS, header_extension_parameters)?,
        encodings: node.field("encodings").list(MAX_ENCODINGS, encoding)?,
        rtcp: node.field("rtcp").optional(rtcp)?.unwrap_or_default(),
        msid: node.field("msid").optional(|msid| msid.text(MAX_TEXT))?,
    })
}

fn capabilities(node: &Node) -> Result<RtpCapabilities, Invalid> {
    node.object()?;
    Ok(RtpCapabilities {
        codecs: node.field("codecs").list(MAX_CODECS, codec_capability)?,
        header_extensions: node
            .field("headerExtensions")
            .list(MAX_HEADER_EXTENSIONS, header_extension)?,
    })
}

fn codec_parameters(node: &Node) -> Result<RtpCodecParameters, Invalid> {
    node.object()?;
    let (mime_type, kind) = mime_type(&node.field("mimeType"))?;
    Ok(RtpCodecParameters {
        mime_type,
        payload_type: node.field("payloadType").payload_type()?,
        clock_rate: node.field("clockRate").integer(1, u32::MAX)?,
        channels: channels(node, kind)?,
        parameters: node.field("parameters").parameters()?,
        rtcp_feedback: node.field("rtcpFeedback").list(MAX_FEEDBACK, feedback)?,
    })
}

fn codec_capability(node: &Node) -> Result<RtpCodecCapability, Invalid> {
    node.object()?;
    let (mime_type, kind) = mime_type(&node.field("mimeType"))?;
    Ok(RtpCodecCapability {
        kind,
        mime_type,
        preferred_payload_type: node.field("preferredPayloadType").optional(Node::payload_type)?,
        clock_rate: node.field("clockRate").integer(1, u32::MAX)?,
        channels: channels(node, kind)?,
        parameters: node.field("parameters").parameters()?,
        rtcp_feedback: node.field("rtcpFeedback").list(MAX_FEEDBACK, feedback)?,
    })
}

/// `audio/…` or `video/…`, and which of the two.
fn mime_type(node: &Node) -> Result<(String, MediaKind), Invalid> {
    let text = node.text(MAX_TEXT)?;
    match codec::kind_of_mime_type(&text) {
        Some(kind) => Ok((text, kind)),
        None => Err(node.error("must be audio/… or video/…")),
    }
}

/// mediasoup's rule: audio has one channel unless it says more, video has none.
fn channels(node: &Node, kind: MediaKind) -> Result<Option<u8>, Invalid> {
    let given = node.field("channels").optional(|channels| channels.integer(1, u8::MAX))?;
    Ok((kind == MediaKind::Audio).then_some(given.unwrap_or(1)))
}

fn feedback(node: &Node) -> Result<RtcpFeedback, Invalid> {
    node.object()?;
    let parameter = node.field("parameter").optional(|parameter| parameter.text(MAX_TEXT))?;
    Ok(RtcpFeedback {
        kind: node.field("type").non_empty_text(MAX_TEXT)?,
        parameter: parameter.unwrap_or_default(),
    })
}

fn header_extension_parameters(node: &Node) -> Result<RtpHeaderExtensionParameters, Invalid> {
    node.object()?;
    Ok(RtpHeaderExtensionParameters {
        uri: node.field("uri").non_empty_text(MAX_TEXT)?,
        // 0 is padding (RFC 8285 §4.2, §4.3).
        id: node.field("id").integer(1, u8::MAX)?,
        encrypt: node.field("encrypt").optional(Node::boolean)?.unwrap_or(false),
        parameters: node.field("parameters").parameters()?,
    })
}

fn header_extension(node: &Node) -> Result<RtpHeaderExtension, Invalid> {
    node.object()?;
    let encrypt = node.field("preferredEncrypt").optional(Node::boolean)?;
    let direction = node.field("direction").optional(direction)?;
    Ok(RtpHeaderExtension {
        kind: kind(&node.field("kind"))?,
        uri: node.field("uri").non_empty_text(MAX_TEXT)?,
        preferred_id: node.field("preferredId").integer(1, u8::MAX)?,
        preferred_encrypt: encrypt.unwrap_or(false),
        direction: direction.unwrap_or(Direction::Sendrecv),
    })
}

fn kind(node: &Node) -> Result<MediaKind, Invalid> {
    match node.text(MAX_TEXT)?.as_str() {
        "audio" => Ok(MediaKind::Audio),
        "video" => Ok(MediaKind::Video),
        _ => Err(node.error("must be audio or video")),
    }
}

fn direction(node: &Node) -> Result<Direction, Invalid> {
    match node.text(MAX_TEXT)?.as_str() {
        "sendrecv" => Ok(Direction::Sendrecv),
        "sendonly" => Ok(Direction::Sendonly),
        "recvonly" => Ok(Direction::Recvonly),
        "inactive" => Ok(Direction::Inactive),
        _ => Err(node.error("must be sendrecv, sendonly, recvonly or inactive")),
    }
}

fn encoding(node: &Node) -> Result<RtpEncodingParameters, Invalid> {
    node.object()?;
    let scalability_mode = node.field("scalabilityMode").optional(|mode| mode.text(MAX_TEXT))?;
    Ok(RtpEncodingParameters {
        ssrc: node.field("ssrc").optional(ssrc)?.filter(|ssrc| ssrc.0 != 0),
        rid: node.label("rid", Rid::new)?,
        codec_payload_type: node.field("codecPayloadType").optional(Node::payload_type)?,
        rtx: node.field("rtx").optional(rtx)?.filter(|rtx| rtx.ssrc.0 != 0),
        dtx: node.field("dtx").optional(Node::boolean)?.unwrap_or(false),
        scalability_mode: scalability_mode.filter(|mode| !mode.is_empty()),
        scale_resolution_down_by: node.field("scaleResolutionDownBy").optional(Node::number)?,
        max_bitrate: node.field("maxBitrate").optional(Node::number)?,
        max_framerate: node.field("maxFramerate").optional(Node::number)?,
        active: node.field("active").optional(Node::boolean)?,
    })
}

fn ssrc(node: &Node) -> Result<Ssrc, Invalid> {
    node.integer(0, u32::MAX).map(Ssrc)
}

fn rtx(node: &Node) -> Result<RtxParameters, Invalid> {
    node.object()?;
    ssrc(&node.field("ssrc")).map(|ssrc| RtxParameters { ssrc })
}

fn rtcp(node: &Node) -> Result<RtcpParameters, Invalid> {
    node.object()?;
    let cname = node.field("cname").optional(|cname| cname.text(MAX_CNAME))?;
    let reduced_size = node.field("reducedSize").optional(Node::boolean)?;
    Ok(RtcpParameters {
        cname: cname.unwrap_or_default(),
        reduced_size: reduced_size.unwrap_or(true),
        mux: node.field("mux").optional(Node::boolean)?,
    })
}

/// A JSON value and where it stands; a missing field is `null`.
struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    fn root(name: &str, value: &'a Value) -> Self {
        Self { path: name.to_owned(), value }
    }

    fn error(&self, reason: impl Into<String>) -> Invalid {
        let reason = if self.value.is_null() { "is missing".to_owned() } else { reason.into() };
        Invalid::new(self.path.clone(), reason)
    }

    fn field(&self, name: &str) -> Node<'a> {
        let value = self.value.get(name).unwrap_or(&Value::Null);
        Node { path: format!("{}.{name}", self.path), value }
    }

    /// `read` unless the value is absent.
    fn optional<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Invalid> {
        if self.value.is_null() { Ok(None) } else { read(self).map(Some) }
    }

    fn required(&self) -> Result<(), Invalid> {
        if self.value.is_null() { Err(self.error("")) } else { Ok(()) }
    }

    fn object(&self) -> Result<&'a Map<String, Value>, Invalid> {
        self.value.as_object().ok_or_else(|| self.error("must be an object"))
    }

    /// Each item by `read`; none when absent.
    fn list<T>(
        &self,
        max: usize,
        read: impl Fn(&Node<'a>) -> Result<T, Invalid>,
    ) -> Result<Vec<T>, Invalid> {
        if self.value.is_null() {
            return Ok(Vec::new());
        }
        let items = self.value.as_array().ok_or_else(|| self.error("must be a list"))?;
        if items.len() > max {
            return Err(self.error(format!("must not have more than {max} entries")));
        }
        let item = |(index, value)| read(&Node { path: format!("{}[{index}]", self.path), value });
        items.iter().enumerate().map(item).collect()
    }

    /// A text without control characters: it may come to stand in another client's SDP, where a
    /// line break would start a new line.
    fn text(&self, max: usize) -> Result<String, Invalid> {
        let text = self.value.as_str().ok_or_else(|| self.error("must be a string"))?;
        if text.len() > max {
            return Err(self.error(format!("must not be longer than {max} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(self.error("must not have control characters"));
        }
        Ok(text.to_owned())
    }

    fn non_empty_text(&self, max: usize) -> Result<String, Invalid> {
        let text = self.text(max)?;
        if text.is_empty() { Err(self.error("must not be empty")) } else { Ok(text) }
    }

    /// A MID or RID; mediasoup takes an empty one for none.
    fn label<L>(&self, name: &str, new: fn(&[u8]) -> Option<L>) -> Result<Option<L>, Invalid> {
        let node = self.field(name);
        let Some(text) = node.optional(|node| node.text(MAX_TEXT))?.filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        let reason = || format!("must be at most {MAX_LABEL_LEN} printable ASCII characters");
        new(text.as_bytes()).map(Some).ok_or_else(|| node.error(reason()))
    }

    fn boolean(&self) -> Result<bool, Invalid> {
        self.value.as_bool().ok_or_else(|| self.error("must be true or false"))
    }

    /// A number that is not negative.
    fn number(&self) -> Result<Number, Invalid> {
        match self.value {
            Value::Number(number) if number.as_f64().is_some_and(|value| value >= 0.0) => {
                Ok(number.clone())
            }
            Value::Number(_) => Err(self.error("must not be negative")),
            _ => Err(self.error("must be a number")),
        }
    }

    fn integer<T: Copy + TryFrom<u64> + Into<u64>>(&self, min: T, max: T) -> Result<T, Invalid> {
        let (low, high) = (min.into(), max.into());
        let given = self.value.as_u64().filter(|value| (low..=high).contains(value));
        let fitting = given.and_then(|value| T::try_from(value).ok());
        fitting.ok_or_else(|| self.error(format!("must be an integer from {low} to {high}")))
    }

    fn payload_type(&self) -> Result<PayloadType, Invalid> {
        self.integer(0u8, 127).map(PayloadType)
    }

    /// Codec or header extension parameters: texts and numbers.
    fn parameters(&self) -> Result<Parameters, Invalid> {
        if self.value.is_null() {
            return Ok(Parameters::new());
        }
        let map = self.object()?;
        if map.len() > MAX_PARAMETERS {
            return Err(self.error(format!("must not have more than {MAX_PARAMETERS} entries")));
        }
        for (key, value) in map {
            let shown: String = key.escape_default().take(MAX_SHOWN_KEY).collect();
            let node = Node { path: format!("{}.{shown}", self.path), value };
            if key.len() > MAX_TEXT || key.chars().any(char::is_control) {
                return Err(Invalid::new(node.path, "has a name that cannot be used"));
            }
            match value {
                Value::Number(_) if key == codec::APT => drop(node.payload_type()?),
                Value::Number(_) => {}
                Value::String(_) if key != codec::APT => drop(node.text(MAX_TEXT)?),
                _ => return Err(node.error("must be a number or a string")),
            }
        }
        Ok(map.clone())
    }
}
