//! Tokens good and bad, key files, rotation.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::id::{PeerId, RoomId};

/// Who signs tokens.
pub struct Issuer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Issuer {
    pub fn hs256(id: &'static str) -> Self {
        let key = EncodingKey::from_secret(&[id.as_bytes()[0]; 32]);
        Self { id, algorithm: Algorithm::HS256, key }
    }

    fn ed25519(id: &'static str) -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let pair = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
        Self { id, algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(pair.as_ref()) }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        json!(jwk)
    }

    fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        header
    }

    /// A token of these claims, good for an hour if they do not say otherwise.
    pub fn sign(&self, claims: Value) -> Token {
        self.sign_with(&self.header(), claims)
    }

    fn sign_with(&self, header: &Header, mut claims: Value) -> Token {
        if claims.get("exp").is_none() {
            claims["exp"] = json!(in_seconds(3600));
        }
        Token(encode(header, &claims, &self.key).unwrap())
    }
}

/// Checks tokens of these issuers.
pub fn identity(issuers: &[&Issuer]) -> Identity {
    Identity { keys: Some(watch::channel(keys(issuers)).1) }
}

fn keys(issuers: &[&Issuer]) -> Keys {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    Keys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn in_seconds(seconds: i64) -> u64 {
    get_current_timestamp().checked_add_signed(seconds).unwrap()
}

fn any_room() -> Value {
    json!({ "anyRoom": true })
}

fn reason(identity: &Identity, token: Token) -> String {
    let refusal = identity.check(Some(&token)).expect_err("the token was accepted");
    assert_eq!(refusal.status, 401, "{refusal}");
    refusal.reason
}

#[test]
fn without_keys_everybody_may_do_everything() {
    let grants = Identity::default().check(None).unwrap();
    assert_eq!(grants, Grants::everything());
    let (room, peer) = (RoomId::new("r").unwrap(), PeerId::new("p").unwrap());
    grants.join(&room, &peer).unwrap();
    grants.administer_all().unwrap();
}

#[test]
fn a_token_grants_what_it_names_and_nothing_else() {
    let (secret, pair) = (Issuer::hs256("old"), Issuer::ed25519("new"));
    let identity = identity(&[&secret, &pair]);
    let (room, other) = (RoomId::new("r").unwrap(), RoomId::new("s").unwrap());
    let (ada, eve) = (PeerId::new("ada").unwrap(), PeerId::new("eve").unwrap());
    let status = |result: Result<(), Refusal>| result.err().map(|refusal| refusal.status);
    for issuer in [&secret, &pair] {
        let check = |claims: Value| identity.check(Some(&issuer.sign(claims))).unwrap();
        let bare = check(json!({ "room": "r", "sub": "ada" }));
        bare.join(&room, &ada).unwrap();
        assert_eq!(status(bare.join(&other, &ada)), Some(403));
        assert_eq!(status(bare.join(&room, &eve)), Some(403));
        assert_eq!(status(bare.connect()), Some(403));
        assert_eq!(status(bare.subscribe()), Some(403));
        assert_eq!(status(bare.administer(&room)), Some(403));
        for source in [Source::Audio, Source::Video, Source::Screen] {
            assert_eq!(status(bare.publish(source)), Some(403));
        }

        let some =
            check(json!({ "room": "r", "publish": ["audio", "screen"], "administer": true }));
        some.join(&room, &eve).unwrap();
        some.connect().unwrap();
        some.publish(Source::Audio).unwrap();
        some.publish(Source::Screen).unwrap();
        assert_eq!(status(some.publish(Source::Video)), Some(403));
        some.administer(&room).unwrap();
        assert_eq!(status(some.administer(&other)), Some(403));
        assert_eq!(status(some.administer_all()), Some(403));

        let claims = json!({ "publish": true, "subscribe": true, "administer": true });
        let all = check(json!({ "anyRoom": true, "publish": claims["publish"],
            "subscribe": claims["subscribe"], "administer": claims["administer"] }));
        all.join(&other, &ada).unwrap();
        all.publish(Source::Video).unwrap();
        all.subscribe().unwrap();
        all.administer_all().unwrap();
    }
}

#[test]
fn a_screen_is_what_is_said_to_be_one_and_sound_is_sound() {
    use crate::id::MediaKind::{Audio, Video};
    let screen = json!({ "source": "screen" }).as_object().unwrap().clone();
    let camera = json!({ "source": "camera" }).as_object().unwrap().clone();
    assert_eq!(Source::of(Video, &screen), Source::Screen);
    assert_eq!(Source::of(Video, &camera), Source::Video);
    assert_eq!(Source::of(Video, &Default::default()), Source::Video);
    // Whoever may share a screen could else send a microphone as a screen's sound.
    assert_eq!(Source::of(Audio, &screen), Source::Audio);
}

#[test]
fn a_missing_token_is_told_from_a_bad_one() {
    let identity = identity(&[&Issuer::hs256("old")]);
    assert_eq!(identity.check(None).unwrap_err(), Refusal::new(401, "a token is needed"));
}

#[test]
fn what_is_forged_is_refused_without_a_hint() {
    let (secret, pair) = (Issuer::hs256("old"), Issuer::ed25519("new"));
    let identity = identity(&[&secret, &pair]);
    let Token(good) = secret.sign(any_room());
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    identity.check(Some(&Token(good.clone()))).unwrap();

    let Token(more) = secret.sign(json!({ "anyRoom": true, "administer": true }));
    let forged_claims = more.split('.').nth(1).unwrap();
    // {"alg":"none","kid":"old"}
    let none = "eyJhbGciOiJub25lIiwia2lkIjoib2xkIn0";
    let impostor = Issuer { id: "old", ..Issuer::hs256("x") };
    // The public key is no secret: as one of HS256 it must not count.
    let public = DecodingKey::from_jwk(&serde_json::from_value(pair.jwk()).unwrap()).unwrap();
    let key = EncodingKey::from_secret(public.try_get_as_bytes().unwrap());
    let confused = Issuer { id: "new", algorithm: Algorithm::HS256, key };
    let other_length = Issuer { algorithm: Algorithm::HS512, ..Issuer::hs256("old") };
    let mut unnamed = secret.header();
    unnamed.kid = None;
    let mut critical = secret.header();
    critical.crit = Some(vec!["b64".to_owned()]);
    let long = json!({ "anyRoom": true, "pad": "x".repeat(MAX_TOKEN) });

    for (what, token) in [
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("text", "a.b.c".to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("no signature", format!("{head}.{claims}.")),
        ("other claims", format!("{head}.{forged_claims}.{signature}")),
        ("a changed signature", format!("{head}.{claims}.{}", "A".repeat(signature.len()))),
        ("alg none", format!("{none}.{claims}.")),
        ("alg none with a signature", format!("{none}.{claims}.{signature}")),
        ("another secret", impostor.sign(any_room()).0),
        ("the public key as a secret", confused.sign(any_room()).0),
        ("HS512", other_length.sign(any_room()).0),
        ("an unknown kid", Issuer::hs256("older").sign(any_room()).0),
        ("no kid", secret.sign_with(&unnamed, any_room()).0),
        ("a critical extension", secret.sign_with(&critical, any_room()).0),
        ("an oversized token", secret.sign(long).0),
    ] {
        assert_eq!(reason(&identity, Token(token)), "the token is not valid", "{what}");
    }
}

#[test]
fn time_is_kept_within_the_leeway() {
    let issuer = Issuer::hs256("old");
    let identity = identity(&[&issuer]);
    let of = |exp: Value| issuer.sign(json!({ "anyRoom": true, "exp": exp }));
    identity.check(Some(&of(json!(in_seconds(-5))))).unwrap();
    assert_eq!(reason(&identity, of(json!(in_seconds(-60)))), "the token has expired");
    assert_eq!(reason(&identity, of(json!(0))), "the token has expired");
    for missing in [Value::Null, json!(-1), json!(1e300)] {
        assert_eq!(reason(&identity, of(missing)), "the token has no usable exp");
    }
    reason(&identity, of(json!("tomorrow")));
    let early = json!({ "anyRoom": true, "nbf": in_seconds(60) });
    assert_eq!(reason(&identity, issuer.sign(early)), "the token is not valid yet");
}

#[test]
fn an_issuers_mistakes_are_named() {
    let issuer = Issuer::hs256("old");
    let identity = identity(&[&issuer]);
    for (claims, named) in [
        (json!({}), "either room, or anyRoom: true"),
        (json!({ "anyRoom": false }), "either room, or anyRoom: true"),
        (json!({ "room": "r", "anyRoom": true }), "either room, or anyRoom: true"),
        (json!({ "room": "" }), "must be 1 to 128 bytes"),
        (json!({ "room": "r", "publish": ["camera"] }), "unknown variant `camera`"),
        (json!({ "room": "r", "publish": "audio" }), "expected a sequence"),
        (json!({ "room": "r", "subscribe": "yes" }), "expected a boolean"),
    ] {
        let reason = reason(&identity, issuer.sign(claims.clone()));
        assert!(reason.starts_with("the token's claims: ") && reason.contains(named), "{reason}");
    }
    // A room of this name is a room, and not every room.
    let star = identity.check(Some(&issuer.sign(json!({ "room": "*" })))).unwrap();
    assert!(star.join(&RoomId::new("r").unwrap(), &PeerId::new("p").unwrap()).is_err());
}

#[test]
fn keys_can_be_rotated() {
    let (old, new) = (Issuer::hs256("old"), Issuer::ed25519("new"));
    let (sender, watched) = watch::channel(keys(&[&old]));
    let identity = Identity { keys: Some(watched) };
    let check = |issuer: &Issuer| identity.clone().check(Some(&issuer.sign(any_room()))).is_ok();
    assert_eq!((check(&old), check(&new)), (true, false));
    sender.send_replace(keys(&[&old, &new]));
    assert_eq!((check(&old), check(&new)), (true, true));
    sender.send_replace(keys(&[&new]));
    assert_eq!((check(&old), check(&new)), (false, true));
}

#[test]
fn an_admins_rights_end_with_its_token() {
    let issuer = Issuer::hs256("old");
    let claims = json!({ "anyRoom": true, "administer": true, "exp": in_seconds(-5) });
    let grants = identity(&[&issuer]).check(Some(&issuer.sign(claims))).unwrap();
    grants.administer_all().unwrap();
    let mut late = grants;
    late.expire_at(in_seconds(-60));
    assert_eq!(late.administer_all().unwrap_err().status, 401);
}

#[test]
fn a_key_file_that_cannot_be_used_says_why() {
    let (secret, pair) = (Issuer::hs256("old").jwk(), Issuer::ed25519("new").jwk());
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        json!({ "keys": [key] }).to_string()
    };
    for (text, why) in [
        (String::new(), "must be a JWK set"),
        ("{}".to_owned(), "must be a JWK set"),
        (json!({ "keys": [] }).to_string(), "one key at least"),
        (json!({ "keys": [5] }).to_string(), "keys[0] is not a JWK"),
        (json!({ "keys": [secret, secret] }).to_string(), "keys[1] has the kid of another key"),
        (with(&secret, "kid", Value::Null), "has no kid"),
        (with(&secret, "k", json!("c2hvcnQ")), "a secret of less than 32 bytes"),
        (with(&secret, "alg", json!("HS512")), "an alg other than HS256"),
        (with(&pair, "alg", json!("HS256")), "an alg other than HS256 (oct) or EdDSA"),
        (with(&pair, "x", json!("c2hvcnQ")), "an x that is not 32 bytes"),
        (with(&pair, "d", json!("c2VjcmV0")), "the private key"),
        (with(&secret, "kty", json!("RSA")), "is not a usable JWK"),
    ] {
        let said = Keys::parse(text.as_bytes()).err().expect(why).to_string();
        assert!(said.contains(why), "{said} for {text}");
    }
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let token = Token::from_authorization("Bearer  a.b.c ").unwrap();
    assert_eq!(token, Token("a.b.c".to_owned()));
    assert_eq!(format!("{token:?}"), "Token(…)");
    assert!(Token::from_authorization("Basic a.b.c").is_none());
    assert!(Token::from_authorization("Bearer").is_none());
}
