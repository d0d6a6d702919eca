//! What is kept of each row, and the document's table and plots made of it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::Result;
use crate::figure::{Figure, Outcome, Verdict};
use crate::rows::PLOTS;

const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- /figures -->";

/// A measured row, as its file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub row: String,
    /// How long measuring took.
    pub seconds: f64,
    /// It was measured too shortly to mean anything.
    pub quick: bool,
    /// What came out.
    pub outcome: Outcome,
}

impl Kept {
    /// Reads a file; none if it is missing or says something else.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes its file.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, &serde_json::to_string_pretty(self)?)
    }

    /// Whether it could not be measured.
    pub fn failed(&self) -> bool {
        self.outcome.figures.iter().any(|figure| figure.verdict == Verdict::Failed)
    }
}

/// Writes the table and the plots, and puts them into the document.
pub fn write_all(
    out: &Path,
    document: Option<&Path>,
    conditions: &str,
    rows: &[Kept],
) -> Result<()> {
    let table = markdown(conditions, rows);
    write(&out.join("table.md"), &table)?;
    let drawn = draw(out, rows)?;
    let Some(document) = document else { return Ok(()) };
    let folder = document.with_extension("");
    fs::create_dir_all(&folder)?;
    draw(&folder, rows)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = table;
    for (file, title) in drawn {
        let _ = write!(text, "\n![{title}]({name}/{file})\n");
    }
    let old =
        fs::read_to_string(document).map_err(|error| format!("{}: {error}", document.display()))?;
    let new = replaced(&old, &text).ok_or_else(|| format!("{}: no {BEGIN}", document.display()))?;
    write(document, &new)
}

/// Files and titles of the plots that have curves.
fn draw(folder: &Path, rows: &[Kept]) -> Result<Vec<(String, &'static str)>> {
    let curves: Vec<_> = rows.iter().flat_map(|kept| kept.outcome.curves.iter().cloned()).collect();
    let mut drawn = Vec::new();
    for plot in PLOTS {
        let Some(svg) = plot.svg(&curves) else { continue };
        let file = format!("{}.svg", plot.name);
        write(&folder.join(&file), &svg)?;
        drawn.push((file, plot.title));
    }
    Ok(drawn)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn markdown(conditions: &str, rows: &[Kept]) -> String {
    let mut text = format!("{conditions}.\n\n");
    if rows.iter().any(|kept| kept.quick) {
        text += "Measured with `--quick`: these figures mean nothing.\n\n";
    }
    text += "| figure | receivers without UDP_GRO | with | must | aim | | conditions |\n|---|---|---|---|---|---|---|\n";
    for figure in rows.iter().flat_map(|kept| &kept.outcome.figures) {
        let Figure { name, conditions, value, with_gro, must, aim, verdict } = figure;
        let cells = [name, value, with_gro, must, aim, verdict.name(), conditions]
            .map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// `document` with `text` between its marks; none if it has no marks.
fn replaced(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Bound;

    #[test]
    fn a_document_gets_its_table_and_keeps_the_rest() {
        let figure = Figure::number("x | y", 1.5, "ns", Bound::AtMost { must: 2.0, aim: 1.0 });
        let outcome = Outcome { figures: vec![figure.under("lo")], curves: Vec::new() };
        let kept = Kept { row: "x".to_owned(), seconds: 1.0, quick: false, outcome };
        let table = markdown("2 cores", std::slice::from_ref(&kept));
        assert!(table.contains("| x \\| y | 1.5 ns |  | 2 ns | 1 ns | must | lo |"), "{table}");
        let document = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let new = replaced(&document, "new\n").expect("marks");
        assert_eq!(new, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert_eq!(replaced(&new, "new").expect("marks"), new);
        assert_eq!(replaced("head", "new"), None);
        let quick = markdown("2 cores", &[Kept { quick: true, ..kept }]);
        assert!(quick.contains("mean nothing"));
    }
}
