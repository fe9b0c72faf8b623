//! What the model may call: functions, tools that take any text (`custom`), and both in a `namespace`. Chat completions
//! have functions only, so each of them becomes one, and its name tells what it was.

use std::collections::BTreeMap;

use harness_guest::{AllowedTools, ApiError, Function, Tool, ToolChoice, invalid, unsupported};
use serde_json::{Value, json};

use crate::Settings;

/// Tools that OpenAI's service runs itself. The backend has none of them.
const SERVER_TOOLS: [&str; 12] = [
    "apply_patch",
    "code_interpreter",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
];

/// What a function was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The namespace that it is in.
    pub namespace: Option<String>,
    /// Its name there.
    pub name: String,
    /// Whether it takes any text instead of JSON.
    pub is_custom: bool,
}

/// What the functions of a request were, by their names in the chat completion.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, Declared>);

impl Names {
    /// What a function was. One that nobody declared is a function of its own name.
    pub fn of(&self, name: &str) -> Declared {
        let plain = || Declared {
            namespace: None,
            name: name.to_owned(),
            is_custom: false,
        };
        self.0.get(name).cloned().unwrap_or_else(plain)
    }

    /// The name in the chat completion of a call in the history.
    pub fn in_chat(&self, namespace: Option<&str>, name: &str) -> String {
        let found = self
            .0
            .iter()
            .find(|(_, known)| known.namespace.as_deref() == namespace && known.name == name);
        found.map_or_else(|| chat_name(namespace, name), |(known, _)| known.clone())
    }
}

fn chat_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None => name.to_owned(),
        Some(namespace) if namespace.ends_with("__") => format!("{namespace}{name}"),
        Some(namespace) => format!("{namespace}__{name}"),
    }
}

/// Reads the tools.
///
/// # Errors
///
/// Names the tool that cannot be served.
pub fn read(tools: &[Value], settings: &Settings) -> Result<(Vec<Tool>, Names), ApiError> {
    let (mut all, mut names) = (Vec::new(), Names::default());
    for (i, tool) in tools.iter().enumerate() {
        let at = format!("tools[{i}]");
        let kind = tool["type"].as_str().unwrap_or_default();
        match kind {
            "namespace" => {
                let namespace = name_of(tool, &at)?;
                for (j, tool) in tool["tools"].as_array().into_iter().flatten().enumerate() {
                    let at = format!("{at}.tools[{j}]");
                    let kind = tool["type"].as_str().unwrap_or_default();
                    let read = one(kind, tool, Some(&namespace), &at, settings, &mut names)?;
                    all.extend(read);
                }
            }
            kind => all.extend(one(kind, tool, None, &at, settings, &mut names)?),
        }
    }
    Ok((all, names))
}

fn name_of(tool: &Value, at: &str) -> Result<String, ApiError> {
    let name = tool["name"].as_str().filter(|name| !name.is_empty());
    let missing = || invalid(&format!("{at}.name"), "the tool's name is missing");
    name.map(str::to_owned).ok_or_else(missing)
}

fn one(
    kind: &str,
    tool: &Value,
    namespace: Option<&str>,
    at: &str,
    settings: &Settings,
    names: &mut Names,
) -> Result<Option<Tool>, ApiError> {
    let is_custom = match kind {
        "function" => false,
        "custom" => true,
        kind if SERVER_TOOLS.contains(&kind) && settings.ignore_server_tools => return Ok(None),
        kind if SERVER_TOOLS.contains(&kind) => {
            let what = format!(
                "`{kind}` is a tool that OpenAI runs itself, which the backend does not have: leave it out, or set `ignore_server_tools = true` in the configuration of `responses`"
            );
            return Err(unsupported(at, what));
        }
        kind => {
            return Err(unsupported(
                at,
                format!("a tool of the type `{kind}` is not known"),
            ));
        }
    };
    let name = name_of(tool, at)?;
    let in_chat = chat_name(namespace, &name);
    let description = tool["description"].as_str().map(str::to_owned);
    let declared = Declared {
        namespace: namespace.map(str::to_owned),
        name,
        is_custom,
    };
    names.0.insert(in_chat.clone(), declared);
    let parameters = match is_custom {
        true => Some(text_only(tool).to_string()),
        false => tool
            .get("parameters")
            .filter(|value| !value.is_null())
            .map(Value::to_string),
    };
    Ok(Some(Tool::Function(Function {
        name: in_chat,
        description,
        parameters,
        strict: !is_custom && tool["strict"].as_bool() == Some(true),
        extra: None,
    })))
}

/// The parameters of a tool that takes any text. If it has a grammar, that becomes a description.
fn text_only(tool: &Value) -> Value {
    let grammar = tool.pointer("/format/definition").and_then(Value::as_str);
    let mut input = json!({"type": "string"});
    if let Some(grammar) = grammar {
        input["description"] = format!("Text of this grammar:\n{grammar}").into();
    }
    json!({"type": "object", "properties": {"input": input}, "required": ["input"], "additionalProperties": false})
}

/// Reads `tool_choice`.
///
/// # Errors
///
/// Fails if it is of no known form.
pub fn choice(value: &Value, names: &Names) -> Result<Option<ToolChoice>, ApiError> {
    let named = |value: &Value| {
        let name = value["name"].as_str()?;
        Some(names.in_chat(value["namespace"].as_str(), name))
    };
    let choice = match value {
        Value::Null => return Ok(None),
        Value::String(word) => match &**word {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::None),
            "required" => Some(ToolChoice::Required),
            _ => None,
        },
        value => match value["type"].as_str() {
            Some("function" | "custom") => named(value).map(ToolChoice::Function),
            Some("allowed_tools") => {
                let tools = value["tools"].as_array().into_iter().flatten();
                Some(ToolChoice::Allowed(AllowedTools {
                    names: tools.filter_map(named).collect(),
                    required: value["mode"] == "required",
                }))
            }
            _ => None,
        },
    };
    let unknown = || invalid("tool_choice", "`tool_choice` is not understood");
    choice.map(Some).ok_or_else(unknown)
}
