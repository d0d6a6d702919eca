//! What a token's bearer may do.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::control::refusal::Refusal;
use crate::control::requests::{AppData, Text};
use crate::id::{MediaKind, PeerId, RoomId};

/// What a producer shows, as its kind and its client's `appData` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Sound, of whatever.
    Audio,
    /// Pictures that are not said to be a screen's.
    Video,
    /// Pictures that are said to be a screen's.
    Screen,
}

impl Source {
    /// Sound and pictures are told apart by their codecs, a camera and a screen only by the client's word:
    /// whoever may send one kind of pictures can show anything in it, but not call it the other.
    pub fn of(kind: MediaKind, app_data: &AppData) -> Self {
        match kind {
            MediaKind::Audio => Self::Audio,
            MediaKind::Video if app_data.get("source").is_some_and(|it| it == "screen") => {
                Self::Screen
            }
            MediaKind::Video => Self::Video,
        }
    }

    /// As claims call it.
    fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Screen => "screen",
        }
    }
}

/// Some of the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(u8);

impl Sources {
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// Whether `source` is one of these.
    pub fn contains(self, source: Source) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    /// Whether these are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Takes `source` in.
    pub fn insert(&mut self, source: Source) {
        self.0 |= 1 << source as u8;
    }

    /// Takes `source` out.
    pub fn remove(&mut self, source: Source) {
        self.0 &= !(1 << source as u8);
    }
}

/// `true` for all, `false` for none, or a list.
impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::ALL),
            Value::Bool(false) => Ok(Self::default()),
            list => {
                let list: Vec<Source> = serde_json::from_value(list).map_err(D::Error::custom)?;
                let mut sources = Self::default();
                list.into_iter().for_each(|source| sources.insert(source));
                Ok(sources)
            }
        }
    }
}

/// What its bearer may do: a token's claims. What they do not name is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The only room; `None`: any.
    room: Option<RoomId>,
    /// The only name that a peer may take; `None`: any.
    peer: Option<PeerId>,
    publish: Sources,
    subscribe: bool,
    administer: bool,
    /// In seconds since 1970; `None`: never.
    expires: Option<u64>,
}

impl Grants {
    /// Where nobody is asked for a token.
    pub fn everything() -> Self {
        Self {
            room: None,
            peer: None,
            publish: Sources::ALL,
            subscribe: true,
            administer: true,
            expires: None,
        }
    }

    /// 403 if its bearer may not be `peer` in `room`.
    pub fn join(&self, room: &RoomId, peer: &PeerId) -> Result<(), Refusal> {
        self.is_for(room)?;
        let mine = self.peer.as_ref().is_none_or(|own| own == peer);
        allow(mine, "the token is for another peer")
    }

    /// 403 if its bearer may not send this.
    pub fn publish(&self, source: Source) -> Result<(), Refusal> {
        let why = || format!("the token does not allow to publish {}", source.name());
        if self.publish.contains(source) { Ok(()) } else { Err(Refusal::forbidden(why())) }
    }

    /// 403 if its bearer may not receive.
    pub fn subscribe(&self) -> Result<(), Refusal> {
        allow(self.subscribe, "the token does not allow to subscribe")
    }

    /// 403 if its bearer may neither send nor receive.
    pub fn connect(&self) -> Result<(), Refusal> {
        let any = self.subscribe || !self.publish.is_empty();
        allow(any, "the token allows neither to publish nor to subscribe")
    }

    /// 403 if its bearer may not manage `room`; 401 if it could until its token expired.
    pub fn administer(&self, room: &RoomId) -> Result<(), Refusal> {
        self.administer_something()?;
        self.is_for(room)
    }

    /// 403 if its bearer may not manage every room; 401 as above.
    pub fn administer_all(&self) -> Result<(), Refusal> {
        self.administer_something()?;
        allow(self.room.is_none(), "the token is for one room")
    }

    /// As if its token ended then.
    #[cfg(test)]
    pub(super) fn expire_at(&mut self, seconds: u64) {
        self.expires = Some(seconds);
    }

    fn administer_something(&self) -> Result<(), Refusal> {
        allow(self.administer, "the token does not allow to administer")?;
        let now = jsonwebtoken::get_current_timestamp();
        if self.expires.is_some_and(|end| end.saturating_add(super::LEEWAY) < now) {
            return Err(Refusal::unauthorized("the token has expired"));
        }
        Ok(())
    }

    fn is_for(&self, room: &RoomId) -> Result<(), Refusal> {
        let fits = self.room.as_ref().is_none_or(|own| own == room);
        allow(fits, "the token is for another room")
    }
}

fn allow(allowed: bool, why: &str) -> Result<(), Refusal> {
    if allowed { Ok(()) } else { Err(Refusal::forbidden(why)) }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The names on the wire.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Claims {
            room: Option<Text<RoomId>>,
            #[serde(default)]
            any_room: bool,
            sub: Option<Text<PeerId>>,
            #[serde(default)]
            publish: Sources,
            #[serde(default)]
            subscribe: bool,
            #[serde(default)]
            administer: bool,
            exp: Option<f64>,
        }
        let claims = Claims::deserialize(deserializer)?;
        // No name may mean every room: issuers let users choose names.
        if claims.room.is_some() == claims.any_room {
            return Err(D::Error::custom("either room, or anyRoom: true, must be there"));
        }
        Ok(Self {
            room: claims.room.map(|room| room.0),
            peer: claims.sub.map(|peer| peer.0),
            publish: claims.publish,
            subscribe: claims.subscribe,
            administer: claims.administer,
            expires: claims.exp.map(|seconds| seconds as u64),
        })
    }
}
