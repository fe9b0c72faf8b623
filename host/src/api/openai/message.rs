//! Reads a message of a request: checks it, and makes the program's own type of it.

use guests::completion::Json;
use guests::request::{
    Audio, Content, File, FunctionCall, Image, Message, Part, Role, TextPart, ToolCall,
};
use serde_json::{Map, Value};

use super::request::{for_display, wrong_value};
use super::shapes;
use crate::failure::{Failure, Kind};

const ROLES: [(&str, Role); 5] = [
    ("system", Role::System),
    ("developer", Role::Developer),
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("tool", Role::Tool),
];

/// Reads the message at `at`, such as `messages[2]`.
///
/// # Errors
///
/// Names the field that is missing, of a wrong type or not supported.
pub(super) fn read(at: &str, message: Value) -> Result<Message, Failure> {
    shapes::MESSAGE.check(&message, at)?;
    let mut fields = match message {
        Value::Object(fields) => fields,
        other => return Err(wrong_value(at, "an object", &other)),
    };
    let role = role(at, fields.shift_remove("role"))?;
    let content = content(
        &format!("{at}.content"),
        role,
        fields.shift_remove("content"),
    )?;
    if fields
        .shift_remove("function_call")
        .is_some_and(|call| !call.is_null())
    {
        let at = format!("{at}.function_call");
        let message = format!("`{at}` is not supported: use `tool_calls`");
        return Err(Failure::new(Kind::UnsupportedParameter, message).with_param(at));
    }
    let calls = match fields.shift_remove("tool_calls") {
        Some(Value::Array(calls)) => calls,
        _ => Vec::new(),
    };
    Ok(Message {
        role,
        name: take_string(&mut fields, "name"),
        content,
        tool_calls: calls.into_iter().map(call).collect(),
        tool_call_id: take_string(&mut fields, "tool_call_id"),
        extra: rest(fields),
    })
}

fn role(at: &str, role: Option<Value>) -> Result<Role, Failure> {
    let at = format!("{at}.role");
    let name = match role {
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong_value(&at, "a string", &other)),
        None => return Err(Failure::invalid(at.as_str(), format!("`{at}` is missing"))),
    };
    if let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == name) {
        return Ok(*role);
    }
    if name == "function" {
        let message = "the role `function` is not supported: use `tools`, and the role `tool`";
        return Err(Failure::new(Kind::UnsupportedParameter, message).with_param(at));
    }
    let known = ROLES.map(|(known, _)| known).join(", ");
    let name = for_display(&name);
    let message = format!("`{name}` is not a role: use one of {known}");
    Err(Failure::invalid(at, message))
}

fn content(at: &str, role: Role, content: Option<Value>) -> Result<Option<Content>, Failure> {
    match content {
        Some(Value::String(text)) => Ok(Some(Content::Text(text))),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            let parts = parts.map(|(j, each)| part(&format!("{at}[{j}]"), each));
            Ok(Some(Content::Parts(parts.collect::<Result<_, _>>()?)))
        }
        None | Some(Value::Null) if role == Role::Assistant => Ok(None),
        None | Some(Value::Null) => Err(Failure::invalid(at, format!("`{at}` is missing"))),
        Some(other) => Err(wrong_value(at, "a string or an array of parts", &other)),
    }
}

fn part(at: &str, part: Value) -> Result<Part, Failure> {
    let fields = match part {
        Value::Object(fields) => fields,
        other => return Err(wrong_value(at, "an object", &other)),
    };
    let kind = match fields.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        other => {
            let found = other.unwrap_or(&Value::Null);
            return Err(wrong_value(&format!("{at}.type"), "a string", found));
        }
    };
    let of_text = |fields| text_part(at, &kind, fields);
    Ok(match kind.as_str() {
        "text" => Part::Text(of_text(fields)?),
        "refusal" => Part::Refusal(of_text(fields)?),
        "image_url" => Part::Image(image(at, fields)?),
        "input_audio" => Part::Audio(audio(at, fields)?),
        "file" => Part::File(file(at, fields)?),
        _ => Part::Other(Value::Object(fields).to_string()),
    })
}

fn text_part(at: &str, kind: &str, mut fields: Map<String, Value>) -> Result<TextPart, Failure> {
    fields.shift_remove("type");
    match fields.shift_remove(kind) {
        Some(Value::String(text)) => Ok(TextPart {
            text,
            extra: rest(fields),
        }),
        other => {
            let found = other.unwrap_or(Value::Null);
            Err(wrong_value(&format!("{at}.{kind}"), "a string", &found))
        }
    }
}

/// `{"url": …}`, or just the URL, as some clients send it.
fn image(at: &str, mut fields: Map<String, Value>) -> Result<Image, Failure> {
    let (url, detail) = match fields.shift_remove("image_url") {
        Some(Value::String(url)) => (Some(url), None),
        Some(Value::Object(mut image)) => {
            let detail = take_string(&mut image, "detail");
            (take_string(&mut image, "url"), detail)
        }
        _ => (None, None),
    };
    fields.shift_remove("type");
    Ok(Image {
        url: url.ok_or_else(|| missing(&format!("{at}.image_url.url")))?,
        detail,
        extra: rest(fields),
    })
}

fn audio(at: &str, mut fields: Map<String, Value>) -> Result<Audio, Failure> {
    let mut audio = object(fields.shift_remove("input_audio"));
    fields.shift_remove("type");
    let mut text = |name: &str| {
        let text = take_string(&mut audio, name);
        text.ok_or_else(|| missing(&format!("{at}.input_audio.{name}")))
    };
    Ok(Audio {
        data: text("data")?,
        format: text("format")?,
        extra: rest(fields),
    })
}

fn file(at: &str, mut fields: Map<String, Value>) -> Result<File, Failure> {
    let mut file = object(fields.shift_remove("file"));
    fields.shift_remove("type");
    let (data, id) = (
        take_string(&mut file, "file_data"),
        take_string(&mut file, "file_id"),
    );
    if data.is_none() && id.is_none() {
        return Err(missing(&format!("{at}.file.file_data")));
    }
    Ok(File {
        filename: take_string(&mut file, "filename"),
        data,
        id,
        extra: rest(fields),
    })
}

/// A call whose shape was checked.
fn call(call: Value) -> ToolCall {
    let mut fields = object(Some(call));
    let mut function = object(fields.shift_remove("function"));
    fields.shift_remove("type");
    ToolCall::Function(FunctionCall {
        id: take_string(&mut fields, "id").unwrap_or_default(),
        name: take_string(&mut function, "name").unwrap_or_default(),
        arguments: take_string(&mut function, "arguments").unwrap_or_default(),
        extra: rest(fields),
    })
}

fn missing(at: &str) -> Failure {
    Failure::invalid(at, format!("`{at}` is missing"))
}

/// An object; of anything else, an empty one.
pub(super) fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Takes a string out of `fields`. Anything else stays there.
pub(super) fn take_string(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.get_mut(name)? {
        Value::String(text) => {
            let text = std::mem::take(text);
            fields.shift_remove(name);
            Some(text)
        }
        _ => None,
    }
}

/// What is left of some fields, for a guest that knows more of them.
pub(super) fn rest(fields: Map<String, Value>) -> Option<Json> {
    (!fields.is_empty()).then(|| Value::Object(fields).to_string())
}
