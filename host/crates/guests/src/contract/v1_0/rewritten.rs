//! A request on its way out of a transform.

use super::bindings::harness::guest::types;
use crate::request::{
    Audio, Content, File, Function, FunctionCall, Image, JsonSchema, Message, OutputFormat, Part,
    Request, Role, Sampling, TextPart, Tool, ToolCall, ToolChoice,
};

impl From<types::RequestResult> for Request {
    fn from(request: types::RequestResult) -> Self {
        let sampling = request.sampling;
        Request {
            messages: request.messages.into_iter().map(message).collect(),
            tools: request.tools.into_iter().map(tool).collect(),
            tool_choice: request.tool_choice.map(tool_choice),
            parallel_tool_calls: request.parallel_tool_calls,
            output_format: output_format(request.output_format),
            stream: request.stream,
            max_tokens: request.max_tokens,
            reasoning_effort: request.reasoning_effort,
            sampling: Sampling {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                seed: sampling.seed,
                frequency_penalty: sampling.frequency_penalty,
                presence_penalty: sampling.presence_penalty,
            },
            stop: request.stop,
            extra: request.extra,
        }
    }
}

fn message(message: types::MessageResult) -> Message {
    Message {
        role: match message.role {
            types::Role::System => Role::System,
            types::Role::Developer => Role::Developer,
            types::Role::User => Role::User,
            types::Role::Assistant => Role::Assistant,
            types::Role::Tool => Role::Tool,
        },
        name: message.name,
        content: message.content.map(|content| match content {
            types::ContentResult::Text(text) => Content::Text(text),
            types::ContentResult::Parts(parts) => {
                Content::Parts(parts.into_iter().map(part).collect())
            }
        }),
        tool_calls: message.tool_calls.into_iter().map(call).collect(),
        tool_call_id: message.tool_call_id,
        extra: message.extra,
    }
}

fn part(part: types::PartResult) -> Part {
    let text_part = |part: types::TextPartResult| TextPart {
        text: part.text,
        extra: part.extra,
    };
    match part {
        types::PartResult::Text(part) => Part::Text(text_part(part)),
        types::PartResult::Refusal(part) => Part::Refusal(text_part(part)),
        types::PartResult::Image(image) => Part::Image(Image {
            url: image.url,
            detail: image.detail,
            extra: image.extra,
        }),
        types::PartResult::Audio(audio) => Part::Audio(Audio {
            data: audio.data,
            format: audio.format,
            extra: audio.extra,
        }),
        types::PartResult::File(file) => Part::File(File {
            filename: file.filename,
            data: file.data,
            id: file.id,
            extra: file.extra,
        }),
        types::PartResult::Other(json) => Part::Other(json),
    }
}

fn call(call: types::ToolCallResult) -> ToolCall {
    match call {
        types::ToolCallResult::Function(call) => ToolCall::Function(FunctionCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
            extra: call.extra,
        }),
        types::ToolCallResult::Other(json) => ToolCall::Other(json),
    }
}

fn tool(tool: types::ToolResult) -> Tool {
    match tool {
        types::ToolResult::Function(function) => Tool::Function(Function {
            name: function.name,
            description: function.description,
            parameters: function.parameters,
            strict: function.strict,
            extra: function.extra,
        }),
        types::ToolResult::Other(json) => Tool::Other(json),
    }
}

fn tool_choice(choice: types::ToolChoiceResult) -> ToolChoice {
    match choice {
        types::ToolChoiceResult::Auto => ToolChoice::Auto,
        types::ToolChoiceResult::None => ToolChoice::None,
        types::ToolChoiceResult::Required => ToolChoice::Required,
        types::ToolChoiceResult::Function(name) => ToolChoice::Function(name),
        types::ToolChoiceResult::Allowed(allowed) => ToolChoice::Allowed {
            names: allowed.names,
            required: allowed.required,
        },
    }
}

fn output_format(format: types::OutputFormatResult) -> OutputFormat {
    match format {
        types::OutputFormatResult::Text => OutputFormat::Text,
        types::OutputFormatResult::JsonObject => OutputFormat::JsonObject,
        types::OutputFormatResult::JsonSchema(schema) => OutputFormat::JsonSchema(JsonSchema {
            name: schema.name,
            description: schema.description,
            schema: schema.schema,
            strict: schema.strict,
            extra: schema.extra,
        }),
    }
}
