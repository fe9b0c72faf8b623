//! Strings within JSON.

use serde_json::Value;

/// How deep JSON may be nested to be read.
const DEPTH_MAX: usize = 100;

/// JSON whose strings, keys too, were changed. None if the text is not JSON, or too deep; `text` itself is returned as it
/// was if nothing was changed.
pub fn mapped(text: &str, change: &mut impl FnMut(&mut String)) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let mut changed = false;
    map(&mut value, DEPTH_MAX, &mut |string: &mut String| {
        let before = string.clone();
        change(string);
        changed |= *string != before;
    })?;
    Some(match changed {
        true => value.to_string(),
        false => text.to_owned(),
    })
}

fn map(value: &mut Value, depth: usize, change: &mut impl FnMut(&mut String)) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => {
            for item in items {
                map(item, depth, change)?;
            }
        }
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            for (mut key, mut value) in old {
                change(&mut key);
                map(&mut value, depth, change)?;
                fields.insert(key, value);
            }
        }
        Value::Number(number) => {
            // A number that is taken out leaves a string in its place.
            let before = number.to_string();
            let mut text = before.clone();
            change(&mut text);
            if text != before {
                *value = Value::String(text);
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
    Some(())
}

/// Calls `each` with all strings of a JSON text.
pub fn strings(text: &str, each: &mut impl FnMut(&str)) {
    let _ = mapped(text, &mut |string| each(string));
}

/// A text as it stands within a JSON string.
pub fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
