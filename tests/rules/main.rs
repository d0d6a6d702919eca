//! The shape of the code, as `ARCHITECTURE.md` promises it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and what it may import. A layer may always import itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("config", &[]),
    ("wire", &["id"]),
    ("transport", &["id", "wire"]),
    ("media", &["id", "wire"]),
    ("ortc", &["id"]),
    ("room", &["id", "wire", "transport", "media"]),
    ("shard", &["id", "wire", "transport", "media", "room"]),
    ("control", &["config", "id", "ortc", "shard::mailbox"]),
];

/// The only files that may hold `unsafe`.
const UNSAFE_FILES: &[&str] = &["shard/sys.rs", "shard/uring.rs"];

/// Longest file, in lines: one purpose, read in one sitting.
const MAX_LINES: usize = 600;

struct Source {
    /// Path below `src`, with forward slashes.
    name: String,
    text: String,
}

impl Source {
    fn layer(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Lines of code, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    /// The code before the tests, which end a file. A test module with a file of its own
    /// (`mod tests;`) may stand anywhere.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self.name.ends_with("tests.rs") || self.name.contains("/tests/");
        let lines: Vec<_> = self.code().collect();
        let begins_tests = |pair: &[(usize, &str)]| {
            pair[0].1.contains("#[cfg(test)]")
                && pair[1].1.starts_with("mod ")
                && pair[1].1.trim_end().ends_with('{')
        };
        let end = lines.windows(2).position(begins_tests).unwrap_or(lines.len());
        lines.into_iter().take(if is_test_file { 0 } else { end })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below src");
                let name = name.to_string_lossy().replace('\\', "/");
                sources.push(Source { name, text: fs::read_to_string(&path).expect("text") });
            }
        }
    }
    assert!(sources.len() > 20, "src was found");
    sources
}

fn check(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn only_an_inline_test_module_ends_the_shipped_code() {
    let text = "#[cfg(test)]\nmod tests;\nfn a() {}\n#[cfg(test)]\nmod more {\nfn b() {}\n}\n";
    let source = Source { name: "a.rs".to_owned(), text: text.to_owned() };
    let lines: Vec<_> = source.shipped().map(|(number, _)| number).collect();
    assert_eq!(lines, [1, 2, 3]);
}

#[test]
fn layers_import_downward_only() {
    let mut found = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == source.layer()) else {
            continue;
        };
        for (number, line) in source.shipped() {
            for import in line.split("crate::").skip(1) {
                let is_fine = import.starts_with(source.layer())
                    || allowed.iter().any(|layer| import.starts_with(layer));
                if !is_fine {
                    found.push(format!("src/{}:{number} imports upward: {line}", source.name));
                }
            }
        }
    }
    check(found);
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !UNSAFE_FILES.contains(&s.name.as_str())) {
        for (number, line) in source.code() {
            if line.contains("unsafe ") {
                found.push(format!("src/{}:{number}: {line}", source.name));
            }
        }
    }
    check(found);
}

/// Below `shard`, time is an argument: or the simulator would not be the same engine.
#[test]
fn only_the_shard_and_control_read_a_clock() {
    let mut found = Vec::new();
    for source in sources() {
        if !["wire", "transport", "media", "room", "ortc"].contains(&source.layer()) {
            continue;
        }
        for (number, line) in source.shipped() {
            if line.contains("Instant::now") || line.contains("SystemTime::now") {
                found.push(format!("src/{}:{number}: {line}", source.name));
            }
        }
    }
    check(found);
}

/// The media path shares nothing, so it locks nothing. `Arc` holds set-up data only.
#[test]
fn no_locks_on_the_media_path() {
    let mut found = Vec::new();
    for source in sources() {
        if !["wire", "transport", "media", "room"].contains(&source.layer()) {
            continue;
        }
        for (number, line) in source.shipped() {
            let shares = ["Mutex", "RwLock", "RefCell", "Atomic"].iter().any(|w| line.contains(w))
                || (line.contains("Arc<")
                    && !line.contains("Identity")
                    && !line.contains("Config"));
            if shares {
                found.push(format!("src/{}:{number}: {line}", source.name));
            }
        }
    }
    check(found);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut found = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            found.push(format!("src/{} does not begin with //!", source.name));
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("src/{} has {lines} lines", source.name));
        }
    }
    check(found);
}
