//! A table: markdown for people, JSON for programs.

use anyhow::Result;
use serde_json::{Value, json};

use super::{super::eval::nll::write_text, Work};

/// A table with what is to be said of it.
pub(super) struct Sheet {
    /// What stands above it.
    pub(super) title: String,
    /// Names of the columns.
    pub(super) columns: Vec<&'static str>,
    /// Rows, as wide.
    pub(super) rows: Vec<Vec<String>>,
    /// Lines below it.
    pub(super) notes: Vec<String>,
}

impl Sheet {
    fn markdown(&self) -> String {
        let line = |cells: &[&str]| format!("| {} |", cells.join(" | "));
        let mut lines = vec![format!("# {}", self.title), String::new(), line(&self.columns)];
        lines.push(format!("|{}", "---|".repeat(self.columns.len())));
        lines.extend(self.rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())));
        lines.push(String::new());
        lines.extend(self.notes.iter().map(|note| format!("* {note}")));
        lines.join("\n") + "\n"
    }

    /// Writes it beside its numbers, and shows it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn publish(&self, work: &Work<'_>, scale: &str, numbers: Value) -> Result<()> {
        let name = work.part.name;
        let (text, json) = (work.folder.join(format!("{name}.md")), work.folder.join(format!("{name}.json")));
        let mut all = numbers;
        all["name"] = json!(name);
        all["out"] = json!(text);
        all["paper_shows"] = json!(work.part.paper);
        all["notes"] = json!(self.notes);
        write_text(&text, &self.markdown())?;
        write_text(&json, &format!("{all:#}\n"))?;
        for path in [&text, &json] {
            work.output.result(&path.display().to_string())?;
        }
        work.tell(scale)?;
        work.output.result(&self.markdown())?;
        Ok(work.output.json(&all)?)
    }
}

/// A number as tables show it, or a dash.
pub(super) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A number with its deviation, or a dash.
pub(super) fn spread(value: Option<(f64, f64)>) -> String {
    value.map_or_else(|| "–".to_owned(), |(mean, deviation)| format!("{mean:.2} ± {deviation:.2}"))
}
