//! The client's functions: how they are described to the CLI, and how the client wants them used.
//!
//! They are the tools of an MCP server that the CLI believes to be in the program that drives it.
//! The CLI asks that server for its tools, and to call one; it is never answered then, because by
//! that time the call has gone to the client.

use std::collections::HashSet;

use harness_guest::{AllowedTools, ApiError, Tool, ToolChoice};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::{invalid_request, unsupported};
use crate::schema;

/// The MCP server's name.
pub const SERVER: &str = "client";

/// What the CLI puts before the name of a tool of that server.
const PREFIX: &str = "mcp__client__";

/// The most functions. OpenAI takes 128.
const FUNCTIONS_MAX: usize = 512;

/// The longest name of a function, in characters. OpenAI's limit.
const NAME_MAX: usize = 64;

/// The longest text that goes into a function's own description, in characters: 2.1.197 cuts it above 2048. The
/// description inside the schema is not cut, so a longer text goes there.
const DESCRIPTION_MAX: usize = 2000;

/// The functions, and what is to be done with them.
#[derive(Debug, Default, PartialEq)]
pub struct Functions {
    /// The functions that are described to the model.
    pub declared: Vec<Function>,
    /// Whether it may or must call.
    pub choice: Choice,
    /// Whether only the first call of an answer is wanted.
    pub only_one: bool,
}

/// A function of the client.
#[derive(Debug, PartialEq, Serialize)]
pub struct Function {
    /// As the client knows it.
    pub name: String,
    /// For the model.
    pub description: String,
    /// The JSON Schema of its arguments; an object's.
    pub schema: Map<String, Value>,
}

/// How the client wants its functions used.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Choice {
    /// Whatever the model finds right.
    #[default]
    Auto,
    /// None may be called.
    Never,
    /// At least one must be called.
    Required,
    /// This one must be called.
    Named(String),
}

impl Functions {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`. `called` are the functions that the
    /// conversation has calls of.
    ///
    /// # Errors
    ///
    /// Names the tool that the API or the CLI would not take, or a choice that cannot be made.
    pub(crate) fn read<'a>(
        tools: Vec<Tool>,
        choice: Option<ToolChoice>,
        parallel: Option<bool>,
        called: impl Iterator<Item = &'a str>,
    ) -> Result<Self, ApiError> {
        if tools.len() > FUNCTIONS_MAX {
            let message = format!("`tools` may have at most {FUNCTIONS_MAX} functions");
            return Err(invalid_request(message, Some("tools".into())));
        }
        let mut declared: Vec<Function> = Vec::with_capacity(tools.len());
        for (i, tool) in tools.into_iter().enumerate() {
            let function = Function::read(&format!("tools[{i}]"), tool)?;
            if declared.iter().any(|known| known.name == function.name) {
                let at = format!("tools[{i}].function.name");
                return Err(invalid_request(
                    format!("`{at}` is the name of another function"),
                    Some(at),
                ));
            }
            declared.push(function);
        }
        let mut functions = Functions {
            declared,
            choice: Choice::Auto,
            only_one: parallel == Some(false),
        };
        functions.choose(choice.unwrap_or(ToolChoice::Auto))?;
        functions.settle(called);
        Ok(functions)
    }

    fn choose(&mut self, choice: ToolChoice) -> Result<(), ApiError> {
        match choice {
            ToolChoice::Auto => {}
            ToolChoice::None => self.choice = Choice::Never,
            ToolChoice::Required => self.choice = Choice::Required,
            ToolChoice::Function(name) => {
                self.keep(std::slice::from_ref(&name))?;
                self.choice = Choice::Named(name);
            }
            ToolChoice::Allowed(AllowedTools { names, required }) => {
                self.keep(&names)?;
                if required {
                    self.choice = Choice::Required;
                }
            }
        }
        if self.must_call() && self.declared.is_empty() {
            let message = "there is no function to call: `tools` is empty";
            return Err(invalid_request(message, Some("tool_choice".into())));
        }
        Ok(())
    }

    /// Leaves only functions of these names.
    fn keep(&mut self, names: &[String]) -> Result<(), ApiError> {
        for name in names {
            if !self.declared.iter().any(|function| function.name == *name) {
                let name: String = name.chars().take(NAME_MAX).collect();
                return Err(invalid_request(
                    format!("`tools` has no function `{name}`"),
                    Some("tool_choice".into()),
                ));
            }
        }
        self.declared
            .retain(|function| names.contains(&function.name));
        Ok(())
    }

    /// Adjusts the declared functions to the calls in the conversation. If it has no calls and none may be
    /// made, nothing is declared. If it has calls but the client declares nothing, the called functions are
    /// declared, and none may be called: the API wants declarations wherever there are calls.
    fn settle<'a>(&mut self, called: impl Iterator<Item = &'a str>) {
        let mut called = called.peekable();
        if called.peek().is_none() {
            if self.choice == Choice::Never {
                self.declared.clear();
            }
        } else if self.declared.is_empty() {
            self.choice = Choice::Never;
            let mut seen = HashSet::new();
            for name in called {
                if seen.len() < FUNCTIONS_MAX && seen.insert(name) {
                    self.declared.push(Function {
                        name: name.to_owned(),
                        description: String::new(),
                        schema: schema::of_any_object(),
                    });
                }
            }
        }
    }

    /// Whether an answer without a call is not what the client asked for.
    pub fn must_call(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Named(_))
    }

    /// What the model is told of the choice, which the CLI cannot pass on to the API.
    pub fn instruction(&self) -> Option<String> {
        match &self.choice {
            _ if self.declared.is_empty() => None,
            Choice::Auto => None,
            Choice::Never => Some(format!(
                "Do not call any tool whose name begins with `{PREFIX}` in your next answer."
            )),
            Choice::Required => Some(format!(
                "Your next answer must call at least one of the tools whose names begin with `{PREFIX}`."
            )),
            Choice::Named(name) => Some(format!(
                "Your next answer must call the tool `{}`.",
                full_name(name)
            )),
        }
    }

    /// The MCP server's answer to `tools/list`.
    pub fn listed(&self) -> Value {
        let tools: Vec<Value> = self
            .declared
            .iter()
            .map(|f| json!({"name": f.name, "description": f.description, "inputSchema": f.schema}))
            .collect();
        json!({ "tools": tools })
    }
}

impl Function {
    fn read(at: &str, tool: Tool) -> Result<Self, ApiError> {
        let Tool::Function(function) = tool else {
            let what = "tools that are no functions";
            return Err(unsupported(what, format!("{at}.type")));
        };
        let (name, description) = (function.name, function.description);
        check_name(&name, &format!("{at}.function.name"))?;
        let parameters = function.parameters.as_deref();
        let schema = schema::for_arguments(parameters, &format!("{at}.function.parameters"))?;
        Ok(Function::described(
            name,
            description.unwrap_or_default(),
            schema,
        ))
    }

    /// A description that the CLI would cut goes on in the schema.
    fn described(name: String, description: String, mut schema: Map<String, Value>) -> Self {
        let Some((cut, _)) = description.char_indices().nth(DESCRIPTION_MAX) else {
            return Function {
                name,
                description,
                schema,
            };
        };
        let own = match schema.get("description") {
            Some(Value::String(own)) => format!("{own}\n\n"),
            _ => String::new(),
        };
        let short = format!("{} … (in full in the schema)", &description[..cut]);
        schema.insert("description".into(), format!("{own}{description}").into());
        Function {
            name,
            description: short,
            schema,
        }
    }
}

/// The arguments of a call of an earlier answer. What is no JSON object, because the answer was cut
/// short, stands in one as it is. None if they are nested too deeply.
pub(crate) fn arguments(text: &str) -> Option<Map<String, Value>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Map::new());
    }
    let Ok(arguments) = serde_json::from_str::<Map<_, _>>(text) else {
        return Some(Map::from_iter([("arguments".to_owned(), text.into())]));
    };
    (!schema::is_deep(arguments.values())).then_some(arguments)
}

/// Whether arguments are what they should be: a JSON object, or nothing.
pub(crate) fn is_object(text: &str) -> bool {
    text.trim().is_empty() || serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

/// A function's name with the server's prefix, as the model knows it.
pub fn full_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A function's name as the client knows it. None if it is none of the client's.
pub fn plain_name(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// Whether the API takes this for a function's name.
///
/// # Errors
///
/// Names the field `at`.
pub(crate) fn check_name(name: &str, at: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(plain) {
        return Ok(());
    }
    let message = format!("`{at}` must be 1 to {NAME_MAX} letters (a to z), digits, `_` and `-`");
    Err(invalid_request(message, Some(at.to_owned())))
}

#[cfg(test)]
mod tests {
    use harness_guest::testing;

    use super::*;

    fn read(tools: Value, choice: Value) -> Result<Functions, ApiError> {
        let tools = tools.as_array().unwrap().iter().map(testing::tool);
        let choice = testing::tool_choice(&choice);
        Functions::read(tools.collect(), choice, None, [].into_iter())
    }

    fn tool(name: &str, parameters: Value) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    }

    #[test]
    fn a_choice_leaves_only_what_may_be_called() {
        let two = json!([tool("a", json!({})), tool("b", Value::Null)]);
        let names = |choice: Value| {
            let functions = read(two.clone(), choice).unwrap();
            let names: Vec<_> = functions.declared.into_iter().map(|f| f.name).collect();
            (names.join(","), functions.choice)
        };
        assert_eq!(names(json!("auto")), ("a,b".into(), Choice::Auto));
        assert_eq!(names(json!("none")), (String::new(), Choice::Never));
        assert_eq!(names(json!("required")), ("a,b".into(), Choice::Required));
        let named = json!({"type": "function", "function": {"name": "b"}});
        assert_eq!(
            names(named.clone()),
            ("b".into(), Choice::Named("b".into()))
        );
        let allowed =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named]}});
        assert_eq!(names(allowed), ("b".into(), Choice::Auto));
    }

    #[test]
    fn what_the_api_would_refuse_is_refused_by_its_place() {
        for (tools, choice, param) in [
            (
                json!([tool("a b", json!({}))]),
                json!(null),
                "tools[0].function.name",
            ),
            (
                json!([tool(&"x".repeat(65), json!({}))]),
                json!(null),
                "tools[0].function.name",
            ),
            (
                json!([tool("a", json!({})), tool("a", json!({}))]),
                json!(null),
                "tools[1].function.name",
            ),
            (
                json!([tool("a", json!({"type": "array"}))]),
                json!(null),
                "tools[0].function.parameters",
            ),
            (
                json!([tool("a", json!({"properties": {"a@b": {}}}))]),
                json!(null),
                "tools[0].function.parameters",
            ),
            (
                json!([tool("a", json!({"anyOf": []}))]),
                json!(null),
                "tools[0].function.parameters",
            ),
            (
                json!([{"type": "web_search"}]),
                json!(null),
                "tools[0].type",
            ),
            (json!([]), json!("required"), "tool_choice"),
            (
                json!([tool("a", json!({}))]),
                json!({"type": "function", "function": {"name": "b"}}),
                "tool_choice",
            ),
        ] {
            let error = read(tools.clone(), choice).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tools}");
        }
    }

    #[test]
    fn functions_of_the_past_are_declared_though_the_client_declares_none() {
        let functions =
            Functions::read(Vec::new(), None, None, ["f", "f", "g"].into_iter()).unwrap();
        assert_eq!(functions.choice, Choice::Never);
        assert_eq!(functions.declared.len(), 2);
        assert!(functions.instruction().is_some());
    }

    #[test]
    fn a_long_description_is_whole_in_the_schema() {
        let long = "\u{fc}".repeat(3000);
        let tools = json!([{"type": "function", "function": {"name": "f", "description": long,
            "parameters": {"type": "object", "description": "own"}}}]);
        let function = read(tools, Value::Null).unwrap().declared.remove(0);
        assert!(function.description.chars().count() < 2048);
        assert_eq!(function.schema["description"], format!("own\n\n{long}"));
    }
}
