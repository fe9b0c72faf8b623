"""OpenAI's Agents SDK as it is set by default, which speaks Responses, against the built service with each real command
line."""

import asyncio

import agents
import openai

import harness

agents.set_tracing_disabled(True)


@agents.function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def works(url):
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    model = agents.OpenAIResponsesModel(model="m", openai_client=client)
    agent = agents.Agent(name="harness", instructions="Be brief.", model=model, tools=[get_weather])
    told = await agents.Runner.run(agent, "What is the weather in 'Rome'?")
    assert told.final_output == "The result is sunny in Rome", told
    streamed = agents.Runner.run_streamed(agent, "What is the weather in 'Oslo'?")
    kinds = {event.type async for event in streamed.stream_events()}
    assert streamed.final_output == "The result is sunny in Oslo" and "run_item_stream_event" in kinds, kinds


for version in harness.VERSIONS:
    if harness.command_line(version) is None:
        print(f"left out: Claude Code {version} is not there")
        continue
    with harness.real(version) as service:
        asyncio.run(works(service.url))
        print(f"Claude Code {version}: openai-agents")
