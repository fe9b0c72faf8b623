//! What makes two requests equal.

use guests::request::{Request, chat_json};
use sha2::{Digest, Sha256};

use crate::admission::Caller;

/// What equal requests have in common.
pub(crate) type Key = [u8; 32];

/// All that decides an answer.
pub(crate) struct Question<'r> {
    /// None if it does not matter who calls.
    pub(crate) caller: Option<Caller>,
    pub(crate) backend: &'r str,
    /// A digest of how its processes are started.
    pub(crate) launch: &'r [u8; 32],
    pub(crate) fetch_urls: bool,
    /// The model's name for the client, which guests see; its name for the backend; the full id behind it where that is known.
    pub(crate) model: [&'r str; 3],
    /// The digest of the guests and their configurations.
    pub(crate) chain: &'r str,
    pub(crate) body: &'r Request,
}

impl Question<'_> {
    /// A digest of all of it. Whether the answer is streamed makes no difference.
    pub(crate) fn key(&self) -> Key {
        let mut body = chat_json::body(self.body);
        if let Some(body) = body.as_object_mut() {
            body.remove("stream");
        }
        let body = body.to_string();
        let caller: Vec<u8> = match self.caller {
            None => vec![0],
            Some(None) => vec![1],
            Some(Some(digest)) => [&[2], &digest[..]].concat(),
        };
        let [name, model, resolved] = self.model.map(str::as_bytes);
        let urls = [u8::from(self.fetch_urls)];
        let (backend, chain) = (self.backend.as_bytes(), self.chain.as_bytes());
        let mut digest = Sha256::new();
        let parts = [
            &caller,
            backend,
            self.launch,
            &urls,
            name,
            model,
            resolved,
            chain,
        ];
        for part in parts.into_iter().chain([body.as_bytes()]) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use guests::request::{Content, Message, Role};

    use super::*;

    fn request(text: &str, stream: bool) -> Request {
        let message = Message {
            role: Role::User,
            content: Some(Content::Text(text.into())),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            extra: None,
        };
        Request {
            messages: vec![message],
            stream,
            ..Request::default()
        }
    }

    fn question(body: &Request) -> Question<'_> {
        Question {
            caller: Some(Some([7; 32])),
            backend: "claude",
            launch: &[1; 32],
            fetch_urls: false,
            model: ["gpt-4o", "sonnet", "claude-sonnet-5"],
            chain: "c0ffee",
            body,
        }
    }

    #[test]
    fn everything_that_decides_an_answer_makes_another_key() {
        let (hi, streamed, other) = (
            request("Hi", false),
            request("Hi", true),
            request("Ho", false),
        );
        let key = question(&hi).key();
        assert_eq!(question(&streamed).key(), key);
        let changed = [
            question(&other),
            Question {
                caller: Some(None),
                ..question(&hi)
            },
            Question {
                caller: None,
                ..question(&hi)
            },
            Question {
                backend: "codex",
                ..question(&hi)
            },
            Question {
                launch: &[2; 32],
                ..question(&hi)
            },
            Question {
                fetch_urls: true,
                ..question(&hi)
            },
            Question {
                model: ["gpt-4", "sonnet", "claude-sonnet-5"],
                ..question(&hi)
            },
            Question {
                model: ["gpt-4o", "sonnet", "claude-sonnet-6"],
                ..question(&hi)
            },
            Question {
                model: ["gpt-4o", "sonnetclaude", "-sonnet-5"],
                ..question(&hi)
            },
            Question {
                chain: "decaf",
                ..question(&hi)
            },
        ];
        for question in changed {
            assert_ne!(question.key(), key);
        }
    }
}
