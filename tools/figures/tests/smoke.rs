//! The rows work, with everything small and short. No figure is judged, but that there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The programs of the workspace beside this test's own; built if need be.
fn programs() -> (PathBuf, PathBuf) {
    let own = Path::new(env!("CARGO_BIN_EXE_shardcast-figures"));
    let programs = (own.with_file_name("shardcast"), own.with_file_name("shardcast-load"));
    if !programs.0.exists() || !programs.1.exists() {
        let build = ["build", "--locked", "-p", "shardcast", "-p", "shardcast-load"];
        let built = Command::new(env!("CARGO"))
            .args(build)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.expect("cargo").success());
    }
    programs
}

/// A folder of this test alone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("figures-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn figures(out: &Folder, flags: &[&str]) -> Output {
    let (server, load) = programs();
    Command::new(env!("CARGO_BIN_EXE_shardcast-figures"))
        .args(["--quick", "--json", "--out"])
        .arg(&out.0)
        .args([Path::new("--server"), &server, Path::new("--load"), &load])
        .args(flags)
        .output()
        .expect("it runs")
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn rows_become_lines_a_table_and_plots() {
    let out = Folder::new("rows");
    let document = out.0.join("performance.md");
    fs::write(&document, "# Performance\n\n<!-- figures -->\n<!-- /figures -->\n")
        .expect("a document");
    let document = document.to_str().expect("a name");
    let rows = "audio-rooms,key-frames,handshakes,idle";
    let lines = lines(&figures(&out, &["--only", rows, "--document", document]));
    assert!(lines[0]["kernel"].is_string(), "first the conditions: {lines:?}");
    for row in rows.split(',') {
        let of_row: Vec<_> = lines.iter().filter(|line| line["row"] == row).collect();
        assert!(!of_row.is_empty(), "{row}: {lines:?}");
        assert!(of_row.iter().all(|line| line["verdict"] != "failed"), "{of_row:?}");
    }
    let text = fs::read_to_string(document).expect("the document");
    assert!(text.contains("memory per connected idle peer"), "{text}");
    assert!(text.contains("(performance/memory.svg)"), "{text}");
    assert!(out.0.join("performance/memory.svg").exists());
}

#[test]
fn a_row_that_fails_is_told_and_measured_again() {
    let out = Folder::new("failing");
    let nothing = ["--only", "video-20,fan-out", "--floor", "/bin/false"];
    let output = figures(&out, &nothing);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<_> =
        text.lines().filter(|line| line.contains(r#""verdict":"failed""#)).collect();
    assert_eq!(failed.len(), 1, "the other row goes on: {text}");
    // What failed is tried again, what did not is kept as it is.
    let kept = fs::read(out.0.join("fan-out.json")).expect("a file");
    let output = figures(&out, &[&nothing[..], &["--resume"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read(out.0.join("fan-out.json")).expect("a file"), kept);
    assert_eq!(figures(&out, &["--only", "nothing"]).status.code(), Some(2));
}
