//! A key of a gate file whose value cannot work, said in one line, and the key that a TOML error is about.
//! Leaves to others: which values work.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key whose value cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct BadKey {
    /// The key from the top of the file, e.g. `variants.online.grid[0]`.
    pub key: String,
    /// What is wrong and what to do; one line.
    pub why: String,
}

impl BadKey {
    /// Both parts.
    pub fn new(key: impl Into<String>, why: impl Into<String>) -> BadKey {
        BadKey { key: key.into(), why: why.into() }
    }

    /// The same as an error.
    pub fn refuse<T>(key: impl Into<String>, why: impl Into<String>) -> Result<T, BadKey> {
        Err(BadKey::new(key, why))
    }
}

/// Reads TOML. A fault of the text itself has its line for a key.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, BadKey> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let line = 1 + text.get(..span.start).unwrap_or_default().matches('\n').count();
        let key = DeTable::parse(text).ok().and_then(|root| key_of(root.get_ref(), &span));
        BadKey::new(key.unwrap_or_else(|| format!("line {line}")), error.message().replace('\n', ", "))
    })
}

/// The deepest key at whose name or value a place of the text is.
fn key_of(table: &DeTable<'_>, place: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = name.get_ref().to_string();
        match within(value, place) {
            Some(rest) if rest.is_empty() || rest.starts_with('[') => Some(format!("{key}{rest}")),
            Some(rest) => Some(format!("{key}.{rest}")),
            None => covers(&name.span(), place).then_some(key),
        }
    })
}

/// The rest of the key below a value, empty where the value itself is meant.
fn within(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> Option<String> {
    let deeper = match value.get_ref() {
        DeValue::Table(table) => key_of(table, place),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(i, item)| {
            let rest = within(item, place)?;
            let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
            Some(format!("[{i}]{dot}{rest}"))
        }),
        _ => None,
    };
    deeper.or_else(|| covers(&value.span(), place).then(String::new))
}

fn covers(span: &Range<usize>, place: &Range<usize>) -> bool {
    span.start <= place.start && place.end <= span.end && !span.is_empty()
}

/// A path of a gate file: in its folder or below, whatever the machine is.
pub fn check_path(key: &str, path: &str) -> Result<(), BadKey> {
    let inside = !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && path.split('/').all(|part| !part.is_empty() && part != "..");
    if inside {
        return Ok(());
    }
    BadKey::refuse(key, format!("{path:?} must be in the gate file's folder or below, as in \"kernels/softmax.cu\""))
}

/// The same, of a file with one of these extensions.
pub fn check_file(key: &str, path: &str, extensions: &[&str]) -> Result<(), BadKey> {
    check_path(key, path)?;
    if path.rsplit_once('.').is_some_and(|(stem, extension)| !stem.is_empty() && extensions.contains(&extension)) {
        return Ok(());
    }
    let wanted = extensions.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(", ");
    BadKey::refuse(key, format!("{path:?} is not a {wanted} file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(rename = "a")]
        _a: Inner,
        #[serde(rename = "list", default)]
        _list: Vec<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "n")]
        _n: Vec<u32>,
    }

    #[test]
    fn errors_name_the_key_they_are_about() {
        let table = [
            ("[a]\nn = [1, true]", "a.n[1]: invalid type: boolean `true`, expected u32"),
            ("a.n = 3", "a.n: invalid type: integer `3`, expected a sequence"),
            ("[a]\nn = []\nm = 1", "a.m: unknown field `m`, expected `n`"),
            ("[a]\n", "a: missing field `n`"),
            ("a = { n = [] }\nlist = [[{ n = [\"\"] }]]", "list[0][0].n[0]: invalid type: string \"\", expected u32"),
            ("[a]\nn = [1,", "line 2: unclosed array, expected `]`"),
        ];
        for (text, line) in table {
            assert_eq!(from_toml::<File>(text).unwrap_err().to_string(), line);
        }
        assert!(from_toml::<File>("").unwrap_err().to_string().contains("missing field `a`"));
    }

    #[test]
    fn paths_stay_below_the_gate_file() {
        for good in ["a.cu", "kernels/a.cu", "./a.cu"] {
            assert_eq!(check_file("k", good, &["cu", "ptx"]), Ok(()));
        }
        for bad in ["", "/etc/passwd", "../a.cu", "a/../../b.cu", "a//b.cu", "C:/a.cu", "a\\b.cu"] {
            assert!(check_path("k", bad).unwrap_err().to_string().starts_with("k: "), "{bad}");
        }
        assert_eq!(
            check_file("k", "a.cpp", &["cu", "ptx"]).unwrap_err().to_string(),
            "k: \"a.cpp\" is not a .cu, .ptx file"
        );
        assert!(check_file("k", ".cu", &["cu"]).is_err());
    }
}
