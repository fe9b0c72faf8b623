//! What a session of the CLI holds, and what it leaves for the next request.
//!
//! A conversation consists of rounds: a question, and everything up to the next question. Calls of functions and their
//! results are part of the round. A request can go on in a session whose rounds have the same keys as its own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::block::{Block, Source};
use crate::conversation::{Speaker, Turn};
use crate::functions::Function;
use crate::line::{CallMeta, McpMessage, McpParams};
use crate::media;
use crate::request::{Format, OutputSpec};

/// The most text in results that are handed in, in bytes. The CLI writes longer ones to a file, from some 50,000
/// characters on, and tells the model where; in a conversation that it replays, it leaves them alone.
const RESULTS_MAX: usize = 40_000;

/// What is fixed when a session begins.
#[derive(Serialize)]
struct Opening<'a> {
    system: &'a [String],
    functions: &'a [Function],
    schema: Option<&'a Value>,
}

#[derive(Serialize)]
struct SessionTurn<'a> {
    by_model: bool,
    blocks: &'a [Block],
}

/// The key of what is fixed when a session begins: its system prompts, its functions and the schema of its answers.
pub(crate) fn opening(system: &[String], spec: &OutputSpec) -> Option<Vec<u8>> {
    let opening = Opening {
        system,
        functions: &spec.functions.declared,
        schema: match &spec.format {
            Format::Schema(schema) => Some(schema),
            Format::Text | Format::Object => None,
        },
    };
    serde_json::to_vec(&opening).ok()
}

/// Where each round begins.
pub(crate) fn beginnings(turns: &[Turn]) -> Vec<usize> {
    let all = turns.iter().enumerate();
    let begins = all.filter(|(i, turn)| *i == 0 || is_question(turn));
    begins.map(|(i, _)| i).collect()
}

/// The round that a turn belongs to.
pub(crate) fn round_of(turns: &[Turn], turn: usize) -> usize {
    let later = turns.iter().take(turn + 1).skip(1);
    later.filter(|turn| is_question(turn)).count()
}

/// Whether a message is a question. Results of calls are no target of a rewind: they go with the question before them.
pub(crate) fn is_question(turn: &Turn) -> bool {
    let is_result = |block: &Block| matches!(block, Block::ToolResult { .. });
    turn.speaker == Speaker::User && !turn.blocks.iter().any(is_result)
}

/// The keys of the rounds.
pub(crate) fn rounds(turns: &[Turn]) -> Option<Vec<Vec<u8>>> {
    keys(turns, None)
}

/// The keys of the rounds, of which the last one ends with this answer.
pub(crate) fn rounds_with(turns: &[Turn], answer: &[Block]) -> Option<Vec<Vec<u8>>> {
    keys(turns, Some(answer))
}

fn keys(turns: &[Turn], answer: Option<&[Block]>) -> Option<Vec<Vec<u8>>> {
    let beginnings = beginnings(turns);
    let ends = beginnings.iter().skip(1).copied().chain([turns.len()]);
    let rounds = beginnings.iter().copied().zip(ends);
    let key = |(from, to): (usize, usize)| {
        let said = turns[from..to].iter().map(|turn| SessionTurn {
            by_model: turn.speaker == Speaker::Assistant,
            blocks: &turn.blocks,
        });
        let answer = answer.filter(|_| to == turns.len());
        let answer = answer.map(|blocks| SessionTurn {
            by_model: true,
            blocks,
        });
        serde_json::to_vec(&said.chain(answer).collect::<Vec<_>>()).ok()
    };
    rounds.map(key).collect()
}

/// The ids of the calls whose results a message brings. None if it brings anything else, or what the CLI would not pass
/// on as it is.
pub(crate) fn results(question: &Turn) -> Option<Vec<String>> {
    let mut size = 0;
    let ids = question.blocks.iter().map(|block| match block {
        Block::ToolResult {
            tool_use_id,
            content,
        } if !content.is_empty() && content.iter().all(|block| passes(block, &mut size)) => {
            Some(tool_use_id.clone())
        }
        _ => None,
    });
    let ids: Vec<String> = ids.collect::<Option<_>>()?;
    (size <= RESULTS_MAX).then_some(ids)
}

/// Whether the CLI passes a part of a result on as it is. Adds the text to `size`.
fn passes(block: &Block, size: &mut usize) -> bool {
    match block {
        Block::Text { text } => {
            *size += text.len();
            true
        }
        Block::Image {
            source: Source::Base64 { data, .. },
        } => media::is_small(data),
        _ => false,
    }
}

/// What one session leaves for the next one in the same process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memo {
    /// What the process has cost, in US dollars.
    pub(crate) spent: f64,
    /// For each round, the ids of what takes it back, newest first.
    pub(crate) rewinds: Vec<Vec<String>>,
    /// Calls whose results the process has asked for.
    pub(crate) calls: Vec<PendingCall>,
    /// Whether the process waits for results.
    pub(crate) waits: bool,
}

/// A call whose result the process has asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PendingCall {
    /// The CLI's request.
    pub(crate) request: String,
    /// The message in it.
    rpc: Option<Value>,
    /// The model's call.
    call: Option<String>,
}

impl Memo {
    pub(crate) fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl PendingCall {
    pub(crate) fn new(request: &str, message: &McpMessage) -> Self {
        PendingCall {
            request: request.to_owned(),
            rpc: message.id.clone(),
            call: message.params.meta.tool_use_id.clone(),
        }
    }

    /// The message, as far as it must be known to answer it.
    pub(crate) fn message(&self) -> McpMessage {
        McpMessage {
            id: self.rpc.clone(),
            method: "tools/call".into(),
            params: McpParams {
                meta: CallMeta {
                    tool_use_id: self.call.clone(),
                },
                ..McpParams::default()
            },
        }
    }
}

/// Makes ids for the messages of one request: UUIDs that begin with a number, and go on as the answer's id does. Two ids
/// must differ in their first 24 characters, because 2.1.330 looks at these only when it takes something back.
#[derive(Debug, Default)]
pub(crate) struct MessageIds {
    /// 24 hexadecimal digits.
    request: String,
    count: u64,
}

impl MessageIds {
    /// For the request whose answer has this id: `chatcmpl-…`.
    pub(crate) fn new(id: &str) -> Self {
        const DIGITS: usize = 24;
        let digits = id.rsplit('-').next().unwrap_or_default().chars();
        let digits = digits.filter(char::is_ascii_hexdigit).take(DIGITS);
        let request: String = digits.map(|digit| digit.to_ascii_lowercase()).collect();
        MessageIds {
            request: format!("{request:0<DIGITS$}"),
            count: 0,
        }
    }

    /// The next id.
    pub(crate) fn next(&mut self) -> String {
        self.count += 1;
        self.latest()
    }

    /// The id that was made last.
    pub(crate) fn latest(&self) -> String {
        let part = |from, to| self.request.get(from..to).unwrap_or_default();
        let (a, b, c, d) = (part(0, 4), part(4, 8), part(8, 12), part(12, 24));
        format!("{:08x}-{a}-{b}-{c}-{d}", self.count)
    }
}

/// What a session has cost, in US dollars. The CLI adds up all of its turns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    before: f64,
    in_all: Option<f64>,
}

impl Spent {
    /// At the start of another exchange in a session that has cost so much.
    pub(crate) fn from_memo(before: f64) -> Self {
        Spent {
            before,
            in_all: None,
        }
    }

    /// The cost so far, for the next exchange in this session.
    pub(crate) fn in_memo(self) -> f64 {
        self.in_all.unwrap_or(self.before)
    }

    /// The CLI says what the session has cost.
    pub(crate) fn in_all(&mut self, cost_usd: Option<f64>) {
        self.in_all = cost_usd;
    }

    /// What this exchange has cost.
    pub(crate) fn now(self) -> Option<f64> {
        Some((self.in_all? - self.before).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<Block> {
        Block::text(text.to_owned()).into_iter().collect()
    }

    fn result(id: &str, content: Vec<Block>) -> Block {
        Block::ToolResult {
            tool_use_id: id.into(),
            content,
        }
    }

    fn turn(speaker: Speaker, blocks: Vec<Block>) -> Turn {
        Turn { speaker, blocks }
    }

    #[test]
    fn an_exchange_costs_what_it_added() {
        let mut first = Spent::default();
        assert_eq!(first.now(), None);
        first.in_all(Some(0.25));
        let mut second = Spent::from_memo(first.in_memo());
        second.in_all(Some(1.0));
        assert_eq!((first.now(), second.now()), (Some(0.25), Some(0.75)));
        assert_eq!(Memo::from_text("?").spent, 0.0);
    }

    #[test]
    fn calls_and_their_results_belong_to_the_round_of_the_question() {
        let call = Block::ToolUse {
            id: "c".into(),
            name: "f".into(),
            input: serde_json::Map::new(),
        };
        let turns = [
            turn(Speaker::User, text("one")),
            turn(Speaker::Assistant, vec![call]),
            turn(Speaker::User, vec![result("c", text("r"))]),
            turn(Speaker::Assistant, text("so")),
            turn(Speaker::User, text("two")),
        ];
        assert_eq!(beginnings(&turns), [0, 4]);
        let of: Vec<usize> = (0..5).map(|i| round_of(&turns, i)).collect();
        assert_eq!(of, [0, 0, 0, 0, 1]);
        let keys = rounds(&turns).unwrap();
        assert_eq!(keys[..1], rounds(&turns[..4]).unwrap());
        assert_eq!(
            keys[..1],
            rounds_with(&turns[..3], &turns[3].blocks).unwrap()
        );
        assert_ne!(rounds(&turns[..3]).unwrap()[0], keys[0]);
        let by_model = [
            turn(Speaker::Assistant, text("hi")),
            turn(Speaker::User, text("one")),
        ];
        assert_eq!(beginnings(&by_model), [0, 1]);
    }

    #[test]
    fn only_results_that_stay_as_they_are_are_handed_in() {
        let of = |blocks| results(&turn(Speaker::User, blocks));
        let both = vec![result("a", text("1")), result("b", text("2"))];
        assert_eq!(of(both), Some(vec!["a".into(), "b".into()]));
        let long = "x".repeat(RESULTS_MAX / 2 + 1);
        for blocks in [
            text("question"),
            vec![result("a", text("1")), text("and?").remove(0)],
            vec![result("a", Vec::new())],
            vec![result("a", text(&long)), result("b", text(&long))],
        ] {
            assert_eq!(of(blocks), None);
        }
    }

    #[test]
    fn messages_have_ids_of_their_own() {
        let mut ids = MessageIds::new("chatcmpl-0A1b2c3d4e5f40718293a4b5c6d7e8f9");
        assert_eq!(ids.next(), "00000001-0a1b-2c3d-4e5f-40718293a4b5");
        assert_eq!(ids.next(), "00000002-0a1b-2c3d-4e5f-40718293a4b5");
        assert_eq!(
            MessageIds::new("x").next(),
            "00000001-0000-0000-0000-000000000000"
        );
    }
}
