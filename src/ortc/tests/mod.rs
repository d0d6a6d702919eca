//! The negotiation against what Chromium 156 and Firefox 153 really send and receive through
//! mediasoup-client 3.24.1 (`tests/fixtures/browsers`).

mod client;
mod consumers;
mod malformed;
mod matching;
mod producers;
mod router;

use std::path::PathBuf;

use serde_json::Value;

use super::*;

const FOLDER: &str = "tests/fixtures/browsers";

/// The capabilities with which both browsers receive.
const RECEIVERS: [&str; 2] = [
    "chromium156-msc3.24.1-recvRtpCapabilities.json",
    "firefox153-msc3.24.1-recvRtpCapabilities.json",
];

/// One browser's `produce` request.
struct Recording {
    name: String,
    kind: MediaKind,
    rtp: Value,
}

impl Recording {
    fn named(name: &str) -> Self {
        let request = fixture(name);
        let kind = serde_json::from_value(request["kind"].clone()).expect("a kind");
        Self { name: name.to_owned(), kind, rtp: request["rtpParameters"].clone() }
    }

    fn chromium(scenario: &str) -> Self {
        Self::named(&format!("chromium156-msc3.24.1-produce-{scenario}.json"))
    }

    fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
        let entries = std::fs::read_dir(folder).expect("the folder of fixtures");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
        let mut names: Vec<_> = names.map(|name| name.expect("a name in UTF-8")).collect();
        names.retain(|name| name.contains("-produce-"));
        names.sort();
        names.iter().map(|name| Self::named(name)).collect()
    }

    fn producer(&self) -> Producible {
        self.produce().unwrap_or_else(|invalid| panic!("{}: {invalid}", self.name))
    }

    fn produce(&self) -> Result<Producible, Invalid> {
        produce(self.kind, RtpParameters::try_from(self.rtp.clone())?)
    }

    /// The field that is refused after `pointer` has become `value`.
    fn refused_with(&self, pointer: &str, value: Value) -> String {
        let mut rtp = self.rtp.clone();
        set(&mut rtp, pointer, value);
        let changed = Self { name: self.name.clone(), kind: self.kind, rtp };
        match changed.produce() {
            Ok(_) => "nothing".to_owned(),
            Err(invalid) => invalid.field,
        }
    }
}

fn fixture(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

fn capabilities(name: &str) -> RtpCapabilities {
    fixture(name).try_into().unwrap_or_else(|invalid| panic!("{name}: {invalid}"))
}

fn consumed(producer: &Producible, capabilities: &RtpCapabilities) -> Result<Consumable, Invalid> {
    let mid = Mid::new(b"7").expect("a MID");
    consume(producer, capabilities, mid, Ssrc(1111), Ssrc(2222), "fallback")
}

/// Puts `value` where `pointer` (RFC 6901) leads; its parent must be there.
fn set(root: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match root.pointer_mut(parent).expect("a parent") {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
        _ => panic!("{parent} has no fields"),
    }
}
