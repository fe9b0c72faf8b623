//! Reads a TOML table key by key, and collects every mistake instead of stopping at the first.

use std::cell::RefCell;
use std::time::Duration;

use toml::{Table, Value};

/// Everything that is wrong with a configuration, one line each, every line beginning with the
/// key as the person typed it.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: RefCell<Vec<String>>,
    /// What is accepted, and probably not meant.
    warnings: RefCell<Vec<String>>,
}

impl Problems {
    pub(super) fn add(&self, key: &str, what: impl std::fmt::Display) {
        self.errors.borrow_mut().push(format!("`{key}`: {what}"));
    }

    pub(super) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.errors.into_inner()
    }
}

/// One table of the file. Whatever was not asked for when it is [finished](Section::finish) is
/// reported as unknown.
pub(super) struct Section<'p> {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    pub(super) fn new(path: impl Into<String>, table: Table, problems: &'p Problems) -> Self {
        Section {
            path: path.into(),
            table,
            asked: Vec::new(),
            problems,
        }
    }

    /// Another section of the same file.
    pub(super) fn beside(&self, path: impl Into<String>, table: Table) -> Self {
        Section::new(path, table, self.problems)
    }

    /// Something is wrong with the value of a key.
    pub(super) fn problem(&self, key: &str, what: impl std::fmt::Display) {
        self.problems.add(&self.name(key), what);
    }

    /// The value of a key is accepted, but probably not what was meant.
    pub(super) fn warning(&self, key: &str, what: impl std::fmt::Display) {
        let line = format!("`{}`: {what}", self.name(key));
        self.problems.warnings.borrow_mut().push(line);
    }

    /// The full name of a key in this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of a key, whatever it is.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.read_or(key, wanted, |_| None, read)
    }

    /// Like `read`. For a value that is nearly right, `nearest` returns what to write instead.
    fn read_or<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        nearest: impl FnOnce(&Value) -> Option<String>,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let found = read(&value);
        if found.is_none() {
            let way_out = nearest(&value).map(|right| format!("; write `{key} = {right}`"));
            let way_out = way_out.unwrap_or_default();
            self.problem(
                key,
                format_args!("{} is not {wanted}{way_out}", for_display(&value)),
            );
        }
        found
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// An array of strings. A single string may be written without brackets.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.read(key, "an array of strings such as [\"…\"]", |value| {
            if let Some(single) = value.as_str() {
                return Some(vec![single.to_owned()]);
            }
            let list = value.as_array()?.iter();
            list.map(|v| v.as_str().map(str::to_owned)).collect()
        })
    }

    pub(super) fn count(&mut self, key: &'static str, least: u32, most: u32) -> Option<u32> {
        let wanted = format!("a whole number from {least} to {most}");
        self.read(key, &wanted, |value| {
            let number = u32::try_from(value.as_integer()?).ok()?;
            (least..=most).contains(&number).then_some(number)
        })
    }

    /// A whole number from 1 on.
    pub(super) fn whole(&mut self, key: &'static str) -> Option<u64> {
        self.read(key, "a whole number from 1 on", |value| {
            let number = u64::try_from(value.as_integer()?).ok()?;
            (number > 0).then_some(number)
        })
    }

    /// A number from 0 to `most`, or none for `"auto"`.
    pub(super) fn auto_or_count(&mut self, key: &'static str, most: u32) -> Option<Option<u32>> {
        let wanted = format!("\"auto\", or a whole number from 0 to {most}");
        self.read(key, &wanted, |value| {
            if value.as_str() == Some("auto") {
                return Some(None);
            }
            let number = u32::try_from(value.as_integer()?).ok()?;
            (number <= most).then_some(Some(number))
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let wanted = "a time such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"7d\"";
        let seconds = |value: &Value| {
            let number = value.as_integer().filter(|number| *number >= 0)?;
            Some(format!("\"{number}s\""))
        };
        self.read_or(key, wanted, seconds, |v| parse_duration(v.as_str()?))
    }

    /// A time within which something must happen, so it must not be zero.
    pub(super) fn timeout(&mut self, key: &'static str) -> Option<Duration> {
        let time = self.duration(key)?;
        if time.is_zero() {
            self.problem(key, "within no time nothing can happen: write a longer one");
            return None;
        }
        Some(time)
    }

    /// A number of bytes, at most this many.
    pub(super) fn size(&mut self, key: &'static str, most: usize) -> Option<usize> {
        let wanted = format!(
            "a size such as \"64KiB\" or \"32MiB\", at most {}GiB",
            most >> 30
        );
        self.read_or(key, &wanted, nearest_size, |value| {
            parse_size(value.as_str()?).filter(|size| *size <= most)
        })
    }

    /// One of a few words, each with the value that it means.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let wanted = format!("one of {}", words.join(", "));
        self.read(key, &wanted, |value| {
            let text = value.as_str()?;
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, meaning)| *meaning)
        })
    }

    pub(super) fn environment(&mut self, key: &'static str) -> Option<Vec<(String, String)>> {
        self.read(key, "a table of strings", |value| {
            let table = value.as_table()?.iter();
            table
                .map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect()
        })
    }

    /// Any value, as JSON.
    pub(super) fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        self.read(key, "a table that JSON can express", |value| {
            serde_json::to_value(value.as_table()?).ok()
        })
    }

    /// The table of a key.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        let path = self.name(key);
        let table = self.read(key, "a table", |v| v.as_table().cloned());
        Some(self.beside(path, table?))
    }

    /// The tables of a table, such as `[backends.NAME]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Option<Vec<(String, Section<'p>)>> {
        let path = self.name(key);
        let table = self.read(key, "a table", |v| v.as_table().cloned())?;
        let mut sections = Vec::new();
        for (name, value) in table {
            let path = format!("{path}.{name}");
            match value {
                Value::Table(table) => sections.push((name, self.beside(path, table))),
                other => self.problems.add(
                    &path,
                    format_args!("{} is not a table", for_display(&other)),
                ),
            }
        }
        Some(sections)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            match closest(key, &self.asked) {
                Some(known) => {
                    self.problem(key, format_args!("unknown key; did you mean `{known}`?"))
                }
                None => {
                    let known = self.asked.join(", ");
                    self.problem(key, format_args!("unknown key; known are: {known}"));
                }
            }
        }
    }
}

/// What a message says of a wrong value. Strings are not shown, because one may be an API key; nor are arrays
/// and tables, because they may contain such a string.
fn for_display(value: &Value) -> String {
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => format!("`{value}`"),
        Value::String(_) => "this string".into(),
        Value::Datetime(_) => "a date".into(),
        Value::Array(_) => "this array".into(),
        Value::Table(_) => "this table".into(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..at].parse().ok()?;
    let millis = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (duration <= Duration::from_secs(366 * 24 * 3600)).then_some(duration)
}

fn parse_size(text: &str) -> Option<usize> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: usize = text[..at].parse().ok()?;
    let unit = match &text[at..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The correct spelling of a size that was written without a unit, or with a wrong one.
fn nearest_size(value: &Value) -> Option<String> {
    let text = match value {
        Value::Integer(number) => return Some(format!("\"{number}B\"")).filter(|_| *number >= 0),
        value => value.as_str()?,
    };
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: usize = text[..at].parse().ok()?;
    let unit = match text[at..].trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => "KiB",
        "m" | "mb" | "mi" | "mib" => "MiB",
        "g" | "gb" | "gi" | "gib" => "GiB",
        _ => return None,
    };
    Some(format!("\"{number}{unit}\""))
}

/// The known word that differs from `typed` in at most two letters.
pub(crate) fn closest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let best = known
        .iter()
        .min_by_key(|word| strsim::levenshtein(typed, word))?;
    (strsim::levenshtein(typed, best) <= 2).then_some(*best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_their_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_size("32MiB"), Some(32 << 20));
        for bad in ["", "5", "s", "-1s", "1 s", "9999999999h", "1.5s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for bad in ["", "5", "32MB", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_nearly_right_is_told_how_it_is_written() {
        let problems = Problems::default();
        let table = toml::toml! {
            max_body = "32MB"
            grace = 20
            client_timeout = "0s"
            listen = "one"
        };
        let mut section = Section::new("", table, &problems);
        assert_eq!(section.texts("listen"), Some(vec!["one".to_owned()]));
        section.size("max_body", 1 << 30);
        section.duration("grace");
        section.timeout("client_timeout");
        let lines = problems.into_lines();
        assert!(
            lines[0].contains("write `max_body = \"32MiB\"`"),
            "{lines:?}"
        );
        assert!(lines[1].contains("write `grace = \"20s\"`"), "{lines:?}");
        assert!(lines[2].contains("within no time"), "{lines:?}");
    }

    #[test]
    fn a_misspelt_key_is_told_the_right_one() {
        let problems = Problems::default();
        let table = toml::toml! { comand = "x" };
        let mut section = Section::new("backends.claude", table, &problems);
        assert_eq!(section.text("command"), None);
        section.finish();
        assert_eq!(
            problems.into_lines(),
            ["`backends.claude.comand`: unknown key; did you mean `command`?"]
        );
    }
}
