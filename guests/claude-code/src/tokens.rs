//! What an answer takes, summed over its messages and turns.

use crate::line::Usage;

/// Tokens of an answer.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Of turns after which the model was asked again.
    earlier_turns: Usage,
    /// Of earlier messages in this turn.
    earlier_messages: Usage,
    /// Of the current message. After the turn's `result`: of all messages of the turn.
    now: Usage,
    /// Of thinking in earlier messages and in this one, as the CLI estimates them.
    earlier_thinking: u64,
    thinking: u64,
}

impl Tokens {
    /// A message begins, with these tokens so far.
    pub fn message_began(&mut self, usage: Option<&Usage>) {
        self.now = usage.cloned().unwrap_or_default();
        self.earlier_thinking = self.earlier_thinking.saturating_add(self.thinking);
        self.thinking = 0;
    }

    /// Another message of the turn follows.
    pub fn message_ended(&mut self) {
        self.earlier_messages.add(&self.now);
        self.now = Usage::default();
    }

    /// The message has these tokens by now.
    pub fn counted(&mut self, usage: &Usage) {
        self.now.update(usage);
    }

    /// The CLI's estimate of what was thought in this message.
    pub fn thought(&mut self, tokens: u64) {
        self.thinking = self.thinking.max(tokens);
    }

    /// The turn is over, and all its messages took this.
    pub fn turn_ended(&mut self, usage: &Usage) {
        self.now.update(usage);
        self.earlier_messages = Usage::default();
    }

    /// The model is asked again.
    pub fn next_turn(&mut self) {
        self.earlier_turns.add(&self.now);
        self.now = Usage::default();
    }

    /// The sum in OpenAI's terms. OpenAI's prompt tokens are all of the input. Anthropic counts three parts of
    /// the input separately: read from a cache, written to it, and the rest.
    pub fn usage(&self, cost_usd: Option<f64>) -> harness_guest::Usage {
        let mut sum = self.earlier_turns.clone();
        sum.add(&self.earlier_messages);
        sum.add(&self.now);
        let cached = sum.cache_read_input_tokens.unwrap_or(0);
        let written = sum.cache_creation_input_tokens.unwrap_or(0);
        let input = sum.input_tokens.unwrap_or(0);
        let output = sum.output_tokens.unwrap_or(0);
        let counted = sum
            .output_tokens_details
            .and_then(|details| details.thinking_tokens)
            .filter(|tokens| *tokens > 0);
        let thought = self.earlier_thinking.saturating_add(self.thinking);
        harness_guest::Usage {
            prompt_tokens: input.saturating_add(cached).saturating_add(written),
            completion_tokens: output,
            cached_tokens: cached,
            cache_write_tokens: written,
            reasoning_tokens: counted.unwrap_or(thought).min(output),
            cost_usd,
            extra: None,
        }
    }
}
