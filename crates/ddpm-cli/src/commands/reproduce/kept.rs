//! Results that are found again when the same is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::super::eval::nll::write_text;

/// A file of results, each with what was asked for.
pub(super) struct Kept {
    path: PathBuf,
    all: Map<String, Value>,
}

impl Kept {
    /// Those of a file; none if it is not there, or no longer what it was.
    pub(super) fn open(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        Self { path: path.to_owned(), all: serde_json::from_str(&text).unwrap_or_default() }
    }

    /// A result, if it is an answer to what is asked now.
    pub(super) fn get(&self, key: &str, asked: &Value) -> Option<&Value> {
        let kept = self.all.get(key)?;
        (kept["asked"] == *asked).then(|| &kept["found"])
    }

    /// Keeps a result.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn put(&mut self, key: &str, asked: &Value, found: &Value) -> Result<()> {
        self.all.insert(key.to_owned(), json!({ "asked": asked, "found": found }));
        write_text(&self.path, &format!("{:#}\n", Value::Object(self.all.clone())))
    }

    /// A result that is there or is found now, and then kept.
    ///
    /// # Errors
    /// Those of `find`, and when the file cannot be written.
    pub(super) fn or_find(&mut self, key: &str, asked: &Value, find: impl FnOnce() -> Result<Value>) -> Result<Value> {
        if let Some(found) = self.get(key, asked) {
            return Ok(found.clone());
        }
        let found = find()?;
        self.put(key, asked, &found)?;
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_result_answers_only_what_it_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.json");
        let found = |n: u64, value: f64| {
            let mut kept = Kept::open(&path);
            kept.or_find("row", &json!({ "n": n }), || Ok(json!(value))).unwrap()
        };
        assert_eq!(found(10, 1.5), 1.5);
        assert_eq!(found(10, 2.5), 1.5, "found again");
        assert_eq!(found(20, 2.5), 2.5, "another question");
        fs::write(&path, "{\"row\": {\"asked\": {\"n\": 20").unwrap();
        assert_eq!(found(20, 3.5), 3.5, "a damaged file holds nothing");
        let failed = Kept::open(&path).or_find("other", &json!(1), || anyhow::bail!("no"));
        assert!(failed.is_err() && Kept::open(&path).get("other", &json!(1)).is_none());
    }
}
