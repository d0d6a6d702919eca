//! Seccomp filters out of the profile that is shipped for containers.

use seccompiler::{apply_filter, compile_from_json};
use serde_json::{Value, json};

/// `tools/docker/seccomp.json`
const PROFILE: &str = include_str!("../../tools/docker/seccomp.json");

/// What happens to a call that the profile does not allow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It fails with EPERM, as under Docker.
    Fails,
    /// It ends the process, so that none goes unnoticed.
    Kills,
}

/// The profile, with or without its rules about io_uring. The latter is what Docker does by default.
pub fn profile(with_uring: bool) -> Vec<Value> {
    let profile: Value = serde_json::from_str(PROFILE).expect("JSON");
    let mut rules = profile["syscalls"].as_array().expect("rules").clone();
    let all = rules.len();
    rules.retain(|rule| with_uring || !names(rule).any(|name| name.starts_with("io_uring")));
    assert_eq!(rules.len() < all, !with_uring);
    rules
}

/// Confines this thread and whatever it starts; it cannot be undone.
pub fn confine(rules: &[Value], denied: Denied) {
    let action = match denied {
        Denied::Fails => json!({ "errno": 1 }),
        Denied::Kills => json!("kill_process"),
    };
    // What has an error of its own gets it from a filter of its own, and is let through by the last one, after
    // which no other can be set.
    for rule in rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ERRNO") {
        let fails = json!({ "errno": rule["errnoRet"] });
        let these: Vec<Value> = names(rule).flat_map(|name| entry(name, rule)).collect();
        install(json!({ "mismatch_action": "allow", "match_action": fails, "filter": these }));
    }
    let all = rules.iter().flat_map(|rule| names(rule).flat_map(|name| entry(name, rule)));
    let all: Vec<Value> = all.collect();
    install(json!({ "mismatch_action": action, "match_action": "allow", "filter": all }));
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    rule["names"].as_array().expect("names").iter().filter_map(Value::as_str)
}

/// A call as `seccompiler` writes it; none if this machine's architecture does not have it.
fn entry(name: &str, rule: &Value) -> Option<Value> {
    let arguments = rule["args"].as_array().into_iter().flatten().map(|argument| {
        let (op, val) = match argument["op"].as_str() {
            Some("SCMP_CMP_EQ") => (json!("eq"), &argument["value"]),
            Some("SCMP_CMP_MASKED_EQ") => {
                (json!({ "masked_eq": argument["value"] }), &argument["valueTwo"])
            }
            _ => panic!("{argument}"),
        };
        json!({ "index": argument["index"], "type": "qword", "op": op, "val": val })
    });
    let arguments: Vec<Value> = arguments.collect();
    let entry = if arguments.is_empty() {
        json!({ "syscall": name })
    } else {
        json!({ "syscall": name, "args": arguments })
    };
    let alone = json!({ "mismatch_action": "trap", "match_action": "allow", "filter": [entry] });
    compile(alone).is_some().then_some(entry)
}

fn compile(filter: Value) -> Option<Vec<seccompiler::sock_filter>> {
    let text = json!({ "it": filter }).to_string();
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture that is known");
    compile_from_json(text.as_bytes(), architecture).ok()?.remove("it")
}

fn install(filter: Value) {
    apply_filter(&compile(filter).expect("a filter")).expect("a kernel with seccomp");
}
