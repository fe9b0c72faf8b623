//! Translates the client's messages for the CLI.

use std::collections::HashSet;

use harness_guest::{ApiError, Content, Message, Part, Role, ToolCall};
use serde::Deserialize;

use crate::block::Block;
use crate::failure::{invalid_request, unsupported};
use crate::functions;
use crate::media;

/// A request's messages: the system prompts first, then turns whose roles alternate as sent.
#[derive(Debug, Default, PartialEq)]
pub struct Conversation {
    /// The texts of all `system` and `developer` messages, in order.
    pub system: Vec<String>,
    /// The other messages. Neighbours of one role are one turn with several blocks, because the
    /// CLI would join them with a newline of its own. The last one is the user's.
    pub turns: Vec<Turn>,
}

/// One turn of a conversation.
#[derive(Debug, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said. Never empty.
    pub blocks: Vec<Block>,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The client's user, or one of its functions.
    User,
    /// The model, in an earlier answer.
    Assistant,
}

impl Conversation {
    /// Reads the messages. `urls` is whether the API may be asked to fetch pictures and files.
    ///
    /// # Errors
    ///
    /// Names the field that this adapter cannot serve: content other than texts, pictures and
    /// files, a conversation whose last message is not the user's or a function's, and calls and
    /// results of functions that do not match.
    pub(crate) fn read(messages: Vec<Message>, urls: bool) -> Result<Self, ApiError> {
        let mut reader = Reader {
            urls,
            ..Reader::default()
        };
        for (i, message) in messages.into_iter().enumerate() {
            reader.message(&format!("messages[{i}]"), message)?;
        }
        reader.no_call_is_open()?;
        match reader.conversation.turns.last() {
            Some(turn) if turn.speaker == Speaker::User => Ok(reader.conversation),
            _ => Err(invalid_request(
                "the last message must be a `user` message that is not blank, or the result of a function",
                Some("messages".into()),
            )),
        }
    }

    /// The names of all functions that were called.
    pub fn called(&self) -> impl Iterator<Item = &str> {
        let blocks = self.turns.iter().flat_map(|turn| &turn.blocks);
        blocks.filter_map(|block| match block {
            Block::ToolUse { name, .. } => functions::plain_name(name),
            _ => None,
        })
    }

    /// Whether what was said last are results of functions.
    pub fn ends_with_results(&self) -> bool {
        let last = self.turns.last().into_iter().flat_map(|turn| &turn.blocks);
        last.into_iter()
            .any(|b| matches!(b, Block::ToolResult { .. }))
    }

    fn push(&mut self, speaker: Speaker, blocks: Vec<Block>) {
        match self.turns.last_mut() {
            _ if blocks.is_empty() => {}
            Some(turn) if turn.speaker == speaker => turn.blocks.extend(blocks),
            _ => self.turns.push(Turn { speaker, blocks }),
        }
    }
}

/// The most calls in one message.
const CALLS_MAX: usize = 512;

/// What is known on the way through the messages.
#[derive(Default)]
struct Reader {
    urls: bool,
    conversation: Conversation,
    /// Calls of the last `assistant` message that have no result yet.
    open: Vec<Call>,
    /// The place of the message with these calls, such as `messages[2]`.
    open_at: String,
    /// Each call's id, as it is sent to the API.
    ids: HashSet<String>,
    /// Ids that were made up.
    made_up: usize,
}

struct Call {
    /// As the client knows it.
    id: String,
    /// As it is sent to the API.
    api_id: String,
}

impl Reader {
    fn message(&mut self, at: &str, message: Message) -> Result<(), ApiError> {
        match message.role {
            Role::System | Role::Developer => {
                let blocks = self.blocks(at, message.content)?;
                return self.system(at, blocks);
            }
            Role::Tool => return self.result(at, message),
            Role::User | Role::Assistant => {}
        }
        self.no_call_is_open()?;
        if message.role == Role::User {
            let blocks = self.blocks(at, message.content)?;
            self.conversation.push(Speaker::User, blocks);
            return Ok(());
        }
        let mut blocks = self.blocks(at, message.content)?;
        if blocks
            .iter()
            .any(|block| !matches!(block, Block::Text { .. }))
        {
            let at = format!("{at}.content");
            return Err(unsupported("anything but text in an assistant message", at));
        }
        let calls = message.tool_calls;
        if calls.len() > CALLS_MAX {
            let at = format!("{at}.tool_calls");
            let message = format!("`{at}` may have at most {CALLS_MAX} calls");
            return Err(invalid_request(message, Some(at)));
        }
        for (j, call) in calls.into_iter().enumerate() {
            blocks.push(self.call(&format!("{at}.tool_calls[{j}]"), call)?);
        }
        self.open_at = format!("{at}.tool_calls");
        self.conversation.push(Speaker::Assistant, blocks);
        Ok(())
    }

    fn system(&mut self, at: &str, blocks: Vec<Block>) -> Result<(), ApiError> {
        for block in blocks {
            let Block::Text { text } = block else {
                let at = format!("{at}.content");
                return Err(unsupported("anything but text in a system message", at));
            };
            self.conversation.system.push(text);
        }
        Ok(())
    }

    fn call(&mut self, at: &str, call: ToolCall) -> Result<Block, ApiError> {
        let ToolCall::Function(call) = call else {
            let what = "calls of anything but functions";
            return Err(unsupported(what, at.to_owned()));
        };
        functions::check_name(&call.name, &format!("{at}.function.name"))?;
        if self.open.iter().any(|open| open.id == call.id) {
            let message = format!("`{at}.id` is that of another call of the same message");
            return Err(invalid_request(message, Some(format!("{at}.id"))));
        }
        let Some(input) = functions::arguments(&call.arguments) else {
            let at = format!("{at}.function.arguments");
            let message = format!("`{at}` is nested too deeply");
            return Err(invalid_request(message, Some(at)));
        };
        let api_id = self.api_id(&call.id);
        self.open.push(Call {
            id: call.id,
            api_id: api_id.clone(),
        });
        Ok(Block::ToolUse {
            id: api_id,
            name: functions::full_name(&call.name),
            input,
        })
    }

    /// The id of a call as it is sent to the API: letters, digits, `_` and `-`, and different from the ids of
    /// all earlier calls. The client's id may not do: some models count from 0 in each answer, or write ids
    /// with colons.
    fn api_id(&mut self, id: &str) -> String {
        /// The longest id that is passed on, in characters. Those of the API have 30.
        const ID_MAX: usize = 64;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut api_id: String = id
            .chars()
            .take(ID_MAX)
            .map(|c| if plain(c) { c } else { '_' })
            .collect();
        while api_id.is_empty() || self.ids.contains(&api_id) {
            self.made_up += 1;
            api_id = format!("call_{}", self.made_up);
        }
        self.ids.insert(api_id.clone());
        api_id
    }

    fn result(&mut self, at: &str, message: Message) -> Result<(), ApiError> {
        let id = message.tool_call_id.unwrap_or_default();
        let Some(place) = self.open.iter().position(|open| open.id == id) else {
            let at = format!("{at}.tool_call_id");
            let message = format!(
                "`{at}` must be the `id` of a call in the `assistant` message right before, which has no other result"
            );
            return Err(invalid_request(message, Some(at)));
        };
        let content = self.blocks(at, message.content)?;
        if content.iter().any(Block::is_large_picture) {
            let at = format!("{at}.content");
            let message = format!(
                "a picture in `{at}` is too large for a function's result: 3.75 MB are allowed"
            );
            return Err(invalid_request(message, Some(at)));
        }
        let result = Block::ToolResult {
            tool_use_id: self.open.remove(place).api_id,
            content,
        };
        self.conversation.push(Speaker::User, vec![result]);
        Ok(())
    }

    /// The API takes a call only if its result follows at once.
    fn no_call_is_open(&self) -> Result<(), ApiError> {
        let Some(call) = self.open.first() else {
            return Ok(());
        };
        let id: String = call.id.chars().take(64).collect();
        let message = format!(
            "the call `{id}` has no result: a message of role `tool` must follow for each of `{}`",
            self.open_at
        );
        Err(invalid_request(message, Some(self.open_at.clone())))
    }

    fn blocks(&self, at: &str, content: Option<Content>) -> Result<Vec<Block>, ApiError> {
        let parts = match content {
            None => return Ok(Vec::new()),
            Some(Content::Text(text)) => return Ok(Block::text(text).into_iter().collect()),
            Some(Content::Parts(parts)) => parts,
        };
        let mut blocks = Vec::with_capacity(parts.len());
        for (j, part) in parts.into_iter().enumerate() {
            blocks.extend(self.part(&format!("{at}.content[{j}]"), part)?);
        }
        Ok(blocks)
    }

    fn part(&self, at: &str, part: Part) -> Result<Option<Block>, ApiError> {
        match part {
            Part::Text(part) | Part::Refusal(part) => Ok(Block::text(part.text)),
            Part::Image(image) => media::image(image, at, self.urls).map(Some),
            Part::File(file) => media::file(file, at, self.urls).map(Some),
            Part::Audio(_) => Err(unsupported("sound", at.to_owned())),
            Part::Other(json) => Err(unsupported(&kind_of(&json), at.to_owned())),
        }
    }
}

/// What a part of another type is called.
fn kind_of(json: &str) -> String {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let kind = serde_json::from_str(json).map(|typed: Typed| typed.r#type);
    format!("content of type `{}`", kind.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use harness_guest::testing;
    use serde_json::json;

    use super::*;

    fn read(messages: &str) -> Result<Conversation, ApiError> {
        let messages = serde_json::from_str(messages).unwrap();
        Conversation::read(testing::messages(&messages), false)
    }

    fn turn(speaker: Speaker, texts: &[&str]) -> Turn {
        let blocks = texts.iter().map(|t| Block::text(t.to_string()).unwrap());
        Turn {
            speaker,
            blocks: blocks.collect(),
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
    fn calls_and_results_keep_their_ids_unless_the_api_would_refuse_them() {
        let c = read(
            r#"[{"role":"user","content":"q"},
                {"role":"assistant","content":null,"tool_calls":[
                    {"id":"call_a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
                    {"id":"f:0","type":"function","function":{"name":"f","arguments":""}}]},
                {"role":"tool","tool_call_id":"f:0","content":"second"},
                {"role":"tool","tool_call_id":"call_a","content":[{"type":"text","text":"first"}]},
                {"role":"assistant","content":"so","tool_calls":[
                    {"id":"call_a","type":"function","function":{"name":"f","arguments":"{}"}}]},
                {"role":"tool","tool_call_id":"call_a","content":""}]"#,
        )
        .unwrap();
        let api_id = serde_json::to_value(c.turns.iter().map(|t| &t.blocks).collect::<Vec<_>>());
        assert_eq!(
            api_id.unwrap(),
            json!([
                [{"type": "text", "text": "q"}],
                [{"type": "tool_use", "id": "call_a", "name": "mcp__client__f", "input": {"x": 1}},
                 {"type": "tool_use", "id": "f_0", "name": "mcp__client__f", "input": {}}],
                [{"type": "tool_result", "tool_use_id": "f_0", "content": [{"type": "text", "text": "second"}]},
                 {"type": "tool_result", "tool_use_id": "call_a", "content": [{"type": "text", "text": "first"}]}],
                [{"type": "text", "text": "so"},
                 {"type": "tool_use", "id": "call_1", "name": "mcp__client__f", "input": {}}],
                [{"type": "tool_result", "tool_use_id": "call_1", "content": []}],
            ])
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_the_name_of_its_field() {
        let call = |arguments: &str| {
            format!(
                r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"a","function":{{"name":"f","arguments":{arguments}}}}}]}}"#
            )
        };
        let good = call("\"{}\"");
        let ask = r#"{"role":"user","content":"x"}"#;
        let result = r#"{"role":"tool","tool_call_id":"a","content":"r"}"#;
        let cases = [
            (r#"[{"role":"assistant","content":"hi"}]"#.into(), "messages"),
            (r#"[{"role":"user","content":""}]"#.into(), "messages"),
            (r#"[{"role":"user","content":" \n\u00a0\ufeff"}]"#.into(), "messages"),
            (format!("[{ask},{result}]"), "messages[1].tool_call_id"),
            (format!("[{ask},{good}]"), "messages[1].tool_calls"),
            (format!("[{ask},{good},{ask}]"), "messages[1].tool_calls"),
            (format!("[{ask},{good},{result},{result}]"), "messages[3].tool_call_id"),
            (
                format!("[{ask},{}]", call(&format!("{:?}", "{\"a\":".repeat(110) + "1" + &"}".repeat(110)))),
                "messages[1].tool_calls[0].function.arguments",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}},{"id":"a","function":{"name":"f"}}]}]"#.into(),
                "messages[0].tool_calls[1].id",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"a b"}}]}]"#.into(),
                "messages[0].tool_calls[0].function.name",
            ),
            (
                r#"[{"role":"user","content":[{"type":"input_audio"}]}]"#.into(),
                "messages[0].content[0]",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]"#.into(),
                "messages[0].content[0].image_url.url",
            ),
            (
                r#"[{"role":"user","content":[{"type":"file","file":{"file_id":"x"}}]}]"#.into(),
                "messages[0].content[0].file.file_id",
            ),
        ];
        for (messages, param) in cases {
            let messages: String = messages;
            assert_eq!(
                read(&messages).unwrap_err().param.as_deref(),
                Some(param),
                "{messages}"
            );
        }
    }
}
