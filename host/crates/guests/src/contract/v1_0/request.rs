//! A request on its way into a guest: its texts are borrowed, so that none is copied before the guest's own memory.

use super::bindings::harness::guest::types;
use crate::request::{
    Content, Message, OutputFormat, Part, Request, Role, Tool, ToolCall, ToolChoice,
};

/// Calls `then` with the request as this version of the contract has it.
pub(crate) fn with_request<T>(
    request: &Request,
    then: impl FnOnce(types::RequestParam<'_>) -> T,
) -> T {
    let parts: Vec<Vec<types::PartParam<'_>>> = request.messages.iter().map(parts).collect();
    let calls: Vec<Vec<types::ToolCallParam<'_>>> = request.messages.iter().map(calls).collect();
    let messages: Vec<types::MessageParam<'_>> = request
        .messages
        .iter()
        .zip(parts.iter().zip(&calls))
        .map(|(from, (parts, calls))| message(from, parts, calls))
        .collect();
    let tools: Vec<types::ToolParam<'_>> = request.tools.iter().map(tool).collect();
    let stop: Vec<&str> = request.stop.iter().map(String::as_str).collect();
    let allowed: Vec<&str> = match &request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let sampling = request.sampling;
    then(types::RequestParam {
        messages: &messages,
        tools: &tools,
        tool_choice: request
            .tool_choice
            .as_ref()
            .map(|choice| tool_choice(choice, &allowed)),
        parallel_tool_calls: request.parallel_tool_calls,
        output_format: output_format(&request.output_format),
        stream: request.stream,
        max_tokens: request.max_tokens,
        reasoning_effort: request.reasoning_effort.as_deref(),
        sampling: types::Sampling {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            seed: sampling.seed,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
        },
        stop: &stop,
        extra: request.extra.as_deref(),
    })
}

fn message<'a>(
    message: &'a Message,
    parts: &'a [types::PartParam<'a>],
    calls: &'a [types::ToolCallParam<'a>],
) -> types::MessageParam<'a> {
    types::MessageParam {
        role: match message.role {
            Role::System => types::Role::System,
            Role::Developer => types::Role::Developer,
            Role::User => types::Role::User,
            Role::Assistant => types::Role::Assistant,
            Role::Tool => types::Role::Tool,
        },
        name: message.name.as_deref(),
        content: message.content.as_ref().map(|content| match content {
            Content::Text(text) => types::ContentParam::Text(text),
            Content::Parts(_) => types::ContentParam::Parts(parts),
        }),
        tool_calls: calls,
        tool_call_id: message.tool_call_id.as_deref(),
        extra: message.extra.as_deref(),
    }
}

fn parts(message: &Message) -> Vec<types::PartParam<'_>> {
    match &message.content {
        Some(Content::Parts(parts)) => parts.iter().map(part).collect(),
        _ => Vec::new(),
    }
}

fn part(part: &Part) -> types::PartParam<'_> {
    match part {
        Part::Text(part) => types::PartParam::Text(types::TextPartParam {
            text: &part.text,
            extra: part.extra.as_deref(),
        }),
        Part::Refusal(part) => types::PartParam::Refusal(types::TextPartParam {
            text: &part.text,
            extra: part.extra.as_deref(),
        }),
        Part::Image(image) => types::PartParam::Image(types::ImageParam {
            url: &image.url,
            detail: image.detail.as_deref(),
            extra: image.extra.as_deref(),
        }),
        Part::Audio(audio) => types::PartParam::Audio(types::AudioParam {
            data: &audio.data,
            format: &audio.format,
            extra: audio.extra.as_deref(),
        }),
        Part::File(file) => types::PartParam::File(types::FileParam {
            filename: file.filename.as_deref(),
            data: file.data.as_deref(),
            id: file.id.as_deref(),
            extra: file.extra.as_deref(),
        }),
        Part::Other(json) => types::PartParam::Other(json),
    }
}

fn calls(message: &Message) -> Vec<types::ToolCallParam<'_>> {
    message.tool_calls.iter().map(call).collect()
}

fn call(call: &ToolCall) -> types::ToolCallParam<'_> {
    match call {
        ToolCall::Function(call) => types::ToolCallParam::Function(types::FunctionCallParam {
            id: &call.id,
            name: &call.name,
            arguments: &call.arguments,
            extra: call.extra.as_deref(),
        }),
        ToolCall::Other(json) => types::ToolCallParam::Other(json),
    }
}

fn tool(tool: &Tool) -> types::ToolParam<'_> {
    match tool {
        Tool::Function(function) => types::ToolParam::Function(types::FunctionParam {
            name: &function.name,
            description: function.description.as_deref(),
            parameters: function.parameters.as_deref(),
            strict: function.strict,
            extra: function.extra.as_deref(),
        }),
        Tool::Other(json) => types::ToolParam::Other(json),
    }
}

fn tool_choice<'a>(choice: &'a ToolChoice, allowed: &'a [&'a str]) -> types::ToolChoiceParam<'a> {
    match choice {
        ToolChoice::Auto => types::ToolChoiceParam::Auto,
        ToolChoice::None => types::ToolChoiceParam::None,
        ToolChoice::Required => types::ToolChoiceParam::Required,
        ToolChoice::Function(name) => types::ToolChoiceParam::Function(name),
        ToolChoice::Allowed { required, .. } => {
            types::ToolChoiceParam::Allowed(types::AllowedToolsParam {
                names: allowed,
                required: *required,
            })
        }
    }
}

fn output_format(format: &OutputFormat) -> types::OutputFormatParam<'_> {
    match format {
        OutputFormat::Text => types::OutputFormatParam::Text,
        OutputFormat::JsonObject => types::OutputFormatParam::JsonObject,
        OutputFormat::JsonSchema(schema) => {
            types::OutputFormatParam::JsonSchema(types::JsonSchemaParam {
                name: &schema.name,
                description: schema.description.as_deref(),
                schema: schema.schema.as_deref(),
                strict: schema.strict,
                extra: schema.extra.as_deref(),
            })
        }
    }
}
