//! What the client asked, as the CLI will be told.

use serde::Deserialize;

use crate::contract::types::ApiError;
use crate::failure::invalid_request;

/// A request's messages: the system prompts first, then turns whose roles alternate as sent.
#[derive(Debug, PartialEq)]
pub struct Conversation {
    /// The texts of all `system` and `developer` messages, in order.
    pub system: Vec<String>,
    /// The other messages. Neighbours of one role are one turn with several texts, because the
    /// CLI would join them with a newline of its own. The last one is the user's.
    pub turns: Vec<Turn>,
    /// A value for `--effort`, if the client asked for one.
    pub effort: Option<&'static str>,
}

/// One turn of a conversation.
#[derive(Debug, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said: a text for each content part, none of them blank.
    pub texts: Vec<String>,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The client's user.
    User,
    /// The model, in an earlier answer.
    Assistant,
}

impl Conversation {
    /// Reads a chat completion request.
    ///
    /// # Errors
    ///
    /// Names the field that this adapter cannot serve: anything but text in `messages`, a role
    /// other than `system`, `developer`, `user` and `assistant`, a conversation whose last
    /// message is not the user's, functions, structured output, and stop sequences.
    pub fn from_request(json: &str) -> Result<Self, ApiError> {
        let request: Request = serde_json::from_str(json)
            .map_err(|e| invalid_request(format!("cannot read the request: {e}"), None))?;
        request.refuse_what_is_not_served()?;
        let effort = request.effort()?;
        let mut conversation = Conversation {
            system: Vec::new(),
            turns: Vec::new(),
            effort,
        };
        for (i, message) in request.messages.into_iter().enumerate() {
            conversation.push(i, message)?;
        }
        match conversation.turns.last() {
            Some(turn) if turn.speaker == Speaker::User => Ok(conversation),
            _ => Err(invalid_request(
                "the last message must be a `user` message that is not blank",
                Some("messages".into()),
            )),
        }
    }

    fn push(&mut self, i: usize, message: Message) -> Result<(), ApiError> {
        let texts = message.content.into_texts(i)?;
        let speaker = match message.role.as_str() {
            "system" | "developer" => {
                self.system.extend(texts);
                return Ok(());
            }
            "user" => Speaker::User,
            "assistant" => {
                if message.tool_calls.is_some_and(|calls| !calls.is_empty()) {
                    return Err(unsupported(
                        "function calls",
                        format!("messages[{i}].tool_calls"),
                    ));
                }
                Speaker::Assistant
            }
            role => {
                return Err(unsupported(
                    &format!("the role `{role}`"),
                    format!("messages[{i}].role"),
                ));
            }
        };
        if texts.is_empty() {
            return Ok(());
        }
        match self.turns.last_mut() {
            Some(turn) if turn.speaker == speaker => turn.texts.extend(texts),
            _ => self.turns.push(Turn { speaker, texts }),
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
    reasoning_effort: Option<String>,
    tools: Option<Vec<serde::de::IgnoredAny>>,
    functions: Option<Vec<serde::de::IgnoredAny>>,
    response_format: Option<ResponseFormat>,
    stop: Option<Stop>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Content,
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
    #[default]
    Null,
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

impl Request {
    fn refuse_what_is_not_served(&self) -> Result<(), ApiError> {
        let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if some(&self.tools) {
            return Err(unsupported("function calling", "tools".into()));
        }
        if some(&self.functions) {
            return Err(unsupported("function calling", "functions".into()));
        }
        if let Some(format) = &self.response_format
            && format.r#type != "text"
        {
            return Err(unsupported(
                &format!("the response format `{}`", format.r#type),
                "response_format".into(),
            ));
        }
        let stops = match &self.stop {
            None => false,
            Some(Stop::One(text)) => !text.is_empty(),
            Some(Stop::Several(list)) => !list.is_empty(),
        };
        if stops {
            return Err(unsupported("stop sequences", "stop".into()));
        }
        Ok(())
    }

    /// OpenAI's levels of effort as those of `--effort`. The CLI has none below `low`.
    fn effort(&self) -> Result<Option<&'static str>, ApiError> {
        let Some(effort) = &self.reasoning_effort else {
            return Ok(None);
        };
        match effort.as_str() {
            "none" | "minimal" | "low" => Ok(Some("low")),
            "medium" => Ok(Some("medium")),
            "high" => Ok(Some("high")),
            "xhigh" => Ok(Some("xhigh")),
            "max" => Ok(Some("max")),
            other => Err(invalid_request(
                format!(
                    "`{other}` is no level of effort: use none, minimal, low, medium, high, xhigh or max"
                ),
                Some("reasoning_effort".into()),
            )),
        }
    }
}

impl Content {
    fn into_texts(self, message: usize) -> Result<Vec<String>, ApiError> {
        let parts = match self {
            Content::Null => return Ok(Vec::new()),
            Content::Text(text) => {
                return Ok(Some(text).filter(|t| !is_blank(t)).into_iter().collect());
            }
            Content::Parts(parts) => parts,
        };
        let mut texts = Vec::with_capacity(parts.len());
        for (j, part) in parts.into_iter().enumerate() {
            let text = match part.r#type.as_str() {
                "text" => part.text,
                "refusal" => part.refusal,
                other => {
                    return Err(unsupported(
                        &format!("content of type `{other}`"),
                        format!("messages[{message}].content[{j}]"),
                    ));
                }
            };
            texts.extend(text.filter(|t| !is_blank(t)));
        }
        Ok(texts)
    }
}

/// Whether the CLI takes a text for nothing and leaves it out, or puts its own words there.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c == '\u{feff}')
}

fn unsupported(what: &str, param: String) -> ApiError {
    ApiError {
        code: Some("unsupported_parameter".into()),
        ..invalid_request(
            format!("the adapter `claude-code` does not support {what}"),
            Some(param),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: &str) -> Result<Conversation, ApiError> {
        Conversation::from_request(&format!(r#"{{"messages":{messages}}}"#))
    }

    fn turn(speaker: Speaker, texts: &[&str]) -> Turn {
        Turn {
            speaker,
            texts: texts.iter().map(|t| t.to_string()).collect(),
        }
    }

    #[test]
    fn system_and_developer_messages_become_system_prompts_wherever_they_stand() {
        let c = read(
            r#"[{"role":"system","content":"a"},{"role":"user","content":"q"},
                {"role":"developer","content":[{"type":"text","text":"b"}]}]"#,
        )
        .unwrap();
        assert_eq!(c.system, ["a", "b"]);
        assert_eq!(c.turns, [turn(Speaker::User, &["q"])]);
    }

    #[test]
    fn neighbours_of_one_role_are_one_turn_with_several_texts() {
        let c = read(
            r#"[{"role":"user","content":"1"},{"role":"user","content":[{"type":"text","text":"2"}]},
                {"role":"assistant","content":"3"},{"role":"assistant","content":null},
                {"role":"user","content":"4"}]"#,
        )
        .unwrap();
        assert_eq!(
            c.turns,
            [
                turn(Speaker::User, &["1", "2"]),
                turn(Speaker::Assistant, &["3"]),
                turn(Speaker::User, &["4"]),
            ]
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_the_name_of_its_field() {
        let cases = [
            (r#"[{"role":"assistant","content":"hi"}]"#, "messages"),
            (r#"[{"role":"user","content":""}]"#, "messages"),
            (
                r#"[{"role":"user","content":" \n\u00a0\ufeff"}]"#,
                "messages",
            ),
            (r#"[{"role":"tool","content":"x"}]"#, "messages[0].role"),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]"#,
                "messages[0].content[0]",
            ),
            (
                r#"[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{}]}]"#,
                "messages[1].tool_calls",
            ),
        ];
        for (messages, param) in cases {
            assert_eq!(
                read(messages).unwrap_err().param.as_deref(),
                Some(param),
                "{messages}"
            );
        }
        let hi = r#"[{"role":"user","content":"hi"}]"#;
        for (field, param) in [
            (r#""tools":[{}]"#, "tools"),
            (r#""stop":["a"]"#, "stop"),
            (
                r#""response_format":{"type":"json_object"}"#,
                "response_format",
            ),
            (r#""reasoning_effort":"huge""#, "reasoning_effort"),
        ] {
            let json = format!(r#"{{"messages":{hi},{field}}}"#);
            let error = Conversation::from_request(&json).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{json}");
        }
    }

    #[test]
    fn empty_lists_and_plain_text_formats_are_no_feature() {
        let json = r#"{"messages":[{"role":"user","content":"hi"}],"tools":[],"stop":[],
                       "response_format":{"type":"text"},"reasoning_effort":"minimal"}"#;
        let c = Conversation::from_request(json).unwrap();
        assert_eq!(c.effort, Some("low"));
    }
}
