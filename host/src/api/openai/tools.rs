//! Reads what the model may call, and of what form its answer must be.

use guests::request::{Function, JsonSchema, OutputFormat, Tool, ToolChoice};
use serde_json::{Map, Value};

use super::message::{object, rest, take_string};
use crate::failure::{Failure, Kind};

/// The most names in `tool_choice`. OpenAI takes 128 functions.
const NAMES_MAX: usize = 512;

/// A tool at `at`, such as `tools[2]`, whose shape was checked.
pub(super) fn tool(at: &str, tool: Value) -> Result<Tool, Failure> {
    if tool["type"] != "function" {
        return Ok(Tool::Other(tool.to_string()));
    }
    let mut fields = object(Some(tool));
    let Some(Value::Object(mut function)) = fields.shift_remove("function") else {
        let at = format!("{at}.function");
        return Err(Failure::invalid(at.as_str(), format!("`{at}` is missing")));
    };
    fields.shift_remove("type");
    Ok(Tool::Function(Function {
        name: take_string(&mut function, "name").unwrap_or_default(),
        description: take_string(&mut function, "description"),
        parameters: take_json(&mut function, "parameters"),
        strict: function.get("strict") == Some(&Value::Bool(true)),
        extra: rest(fields),
    }))
}

/// Reads `tool_choice`.
pub(super) fn tool_choice(choice: Option<&Value>) -> Result<Option<ToolChoice>, Failure> {
    let wrong = |message: &str| Failure::invalid("tool_choice", message);
    let name = |value: &Value| value["function"]["name"].as_str().map(str::to_owned);
    let Some(choice) = choice else {
        return Ok(None);
    };
    Ok(Some(match (choice.as_str(), choice["type"].as_str()) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("none"), _) => ToolChoice::None,
        (Some("required"), _) => ToolChoice::Required,
        (_, Some("function")) => ToolChoice::Function(
            name(choice).ok_or_else(|| wrong("`tool_choice.function.name` is missing"))?,
        ),
        (_, Some("allowed_tools")) => {
            let allowed = &choice["allowed_tools"];
            let tools = allowed["tools"].as_array();
            let names: Option<Vec<_>> = tools.and_then(|tools| tools.iter().map(name).collect());
            let names = names.ok_or_else(|| {
                wrong("`tool_choice.allowed_tools.tools` must be a list of functions")
            })?;
            if names.len() > NAMES_MAX {
                let message = format!("`tool_choice` may name at most {NAMES_MAX} functions");
                return Err(wrong(&message));
            }
            let required = match allowed["mode"].as_str() {
                Some("auto") | None => false,
                Some("required") => true,
                Some(_) => {
                    return Err(wrong(
                        "`tool_choice.allowed_tools.mode` must be `auto` or `required`",
                    ));
                }
            };
            ToolChoice::Allowed { names, required }
        }
        _ => {
            return Err(wrong(
                "`tool_choice` must be `none`, `auto`, `required`, or name a function",
            ));
        }
    }))
}

/// Reads `response_format`, whose shape was checked.
pub(super) fn output_format(format: Option<Value>) -> Result<OutputFormat, Failure> {
    let Some(format) = format else {
        return Ok(OutputFormat::Text);
    };
    let mut fields = object(Some(format));
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => Ok(OutputFormat::Text),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") => {
            let Some(Value::Object(mut schema)) = fields.shift_remove("json_schema") else {
                let at = "response_format.json_schema";
                return Err(Failure::invalid(at, format!("`{at}` is missing")));
            };
            Ok(OutputFormat::JsonSchema(JsonSchema {
                name: take_string(&mut schema, "name").unwrap_or_default(),
                description: take_string(&mut schema, "description"),
                schema: take_json(&mut schema, "schema"),
                strict: schema.shift_remove("strict") == Some(Value::Bool(true)),
                extra: rest(schema),
            }))
        }
        _ => {
            let at = "response_format.type";
            let message = format!("`{at}` is not supported: use text, json_object or json_schema");
            Err(Failure::new(Kind::UnsupportedParameter, message).with_param(at))
        }
    }
}

/// Takes a value that is not null out of `fields`, as text.
fn take_json(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    let value = fields.shift_remove(name)?;
    (!value.is_null()).then(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_choice_is_read_or_refused() {
        let function = |name: &str| json!({"type": "function", "function": {"name": name}});
        let allowed = |mode: Value, tools: Value| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
        let read = |choice: &Value| tool_choice(Some(choice)).unwrap().unwrap();
        assert_eq!(read(&json!("required")), ToolChoice::Required);
        assert_eq!(read(&function("f")), ToolChoice::Function("f".into()));
        assert_eq!(
            read(&allowed(
                json!("required"),
                json!([function("a"), function("b")])
            )),
            ToolChoice::Allowed {
                names: vec!["a".into(), "b".into()],
                required: true
            }
        );
        for bad in [
            json!("any"),
            json!({"type": "function"}),
            json!({"type": "custom"}),
            allowed(json!("never"), json!([function("a")])),
            allowed(json!("auto"), json!("a")),
            allowed(json!("auto"), json!(vec![function("f"); 513])),
        ] {
            let failure = tool_choice(Some(&bad)).unwrap_err();
            assert_eq!(failure.param.as_deref(), Some("tool_choice"), "{bad}");
        }
    }

    #[test]
    fn a_format_is_read_or_refused_by_its_place() {
        let at = |format: Value| output_format(Some(format)).unwrap_err().param.unwrap();
        assert_eq!(at(json!({"type": "xml"})), "response_format.type");
        assert_eq!(
            at(json!({"type": "json_schema"})),
            "response_format.json_schema"
        );
        let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": true, "x": 5}});
        let OutputFormat::JsonSchema(schema) = output_format(Some(schema)).unwrap() else {
            panic!("a schema");
        };
        assert_eq!(
            (schema.schema.as_deref(), schema.strict),
            (Some(r#"{"a":1}"#), true)
        );
        assert_eq!(schema.extra.as_deref(), Some(r#"{"x":5}"#));
    }
}
