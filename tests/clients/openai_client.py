"""OpenAI's own Python client against a server: `openai_client.py BASE_URL`."""

import asyncio
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
model = client.models.list().data[0].id
user = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
greedy = {"model": model, "temperature": 0}


def chat(**fields):
    return client.chat.completions.create(messages=user, **{**greedy, **fields})


def complete(prompt="The capital of France is", **fields):
    return client.completions.create(prompt=prompt, **{**greedy, **fields})


def refused(kind, call, **fields):
    try:
        call(**fields)
    except kind as error:
        assert error.body["message"], error.body
        return error.body["message"]
    raise AssertionError(f"{fields} was taken")


# Chat, whole and streamed, is the same text; usage adds up.
whole = chat(max_completion_tokens=24)
text = whole.choices[0].message.content
assert "Paris" in text, text
assert whole.choices[0].finish_reason in ("stop", "length")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

chunks = list(chat(max_completion_tokens=24, stream=True, stream_options={"include_usage": True}))
streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert streamed == text, (streamed, text)
assert chunks[0].choices[0].delta.role == "assistant"
assert chunks[-1].choices == []
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1]
finish = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
assert finish == [whole.choices[0].finish_reason], finish

# Log-probabilities: the greedy token is the most probable of its top list.
for token in chat(max_completion_tokens=4, logprobs=True, top_logprobs=3).choices[0].logprobs.content:
    assert len(token.top_logprobs) == 3
    assert token.top_logprobs[0].token == token.token
    assert token.logprob <= 0
    assert bytes(token.bytes).decode("utf-8", "replace") == token.token

# A stop string ends the answer and is not part of it.
stopped = chat(max_completion_tokens=24, stop=["Paris"])
assert stopped.choices[0].finish_reason == "stop"
assert "Paris" not in stopped.choices[0].message.content
assert text.startswith(stopped.choices[0].message.content)

# n = 2, and the same seed twice.
two, again = (chat(n=2, temperature=1.0, seed=7, max_completion_tokens=16) for _ in range(2))
assert sorted(c.index for c in two.choices) == [0, 1]
assert [c.message.content for c in two.choices] == [c.message.content for c in again.choices]
assert two.choices[0].message.content != two.choices[1].message.content

# Completions: text, several prompts, echo, log-probabilities, streaming, a forbidden token.
done = complete(max_tokens=4)
assert "Paris" in done.choices[0].text, done
assert [c.index for c in complete(["One, two,", "A, B,"], max_tokens=3).choices] == [0, 1]
tail = complete("One, two,", max_tokens=2).choices[0].text
assert complete("One, two,", max_tokens=2, echo=True).choices[0].text == "One, two," + tail
assert len(complete("One, two,", max_tokens=2, logprobs=2).choices[0].logprobs.tokens) == 2
parts = complete(max_tokens=4, stream=True)
assert "".join(p.choices[0].text for p in parts) == done.choices[0].text
by_ids = complete([504, 3575, 282], max_tokens=3)
assert by_ids.usage.prompt_tokens == 3, by_ids

# What cannot be honoured is refused in OpenAI's shape.
refused(openai.NotFoundError, chat, model="nope")
for fields in (
    {"max_completion_tokens": -1},
    {"temperature": -1},
    {"n": 0},
    {"top_p": 2},
    {"response_format": {"type": "json_object"}},
):
    refused(openai.BadRequestError, chat, **fields)
message = refused(openai.BadRequestError, complete, prompt="word " * 40000, max_tokens=1)
assert "maximum context length" in message, message
refused(openai.BadRequestError, chat, logprobs=False, top_logprobs=2)
refused(openai.BadRequestError, chat, logit_bias={"5": 101})
refused(openai.BadRequestError, chat, web_search_options={})
refused(openai.NotFoundError, client.models.retrieve, model="nope")
assert client.models.retrieve(model).id == model


async def at_once():
    """Many requests of one client together: each gets its own answer."""
    many = openai.AsyncOpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)

    async def stream(n):
        texts = [""] * n
        chunks = await many.chat.completions.create(
            messages=user, model=model, seed=3, n=n, stream=True, max_completion_tokens=8,
            logprobs=True, top_logprobs=1, stream_options={"include_usage": True})
        async for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                assert choice.delta.content in (None, "") or choice.logprobs.content
        assert chunk.usage.completion_tokens <= 8 * n, chunk
        return texts

    async def left():
        chunks = await many.completions.create(prompt="Once", model=model, stream=True,
                                               max_tokens=400)
        async for _ in chunks:
            break
        await chunks.close()

    one, two, _, again = await asyncio.gather(stream(1), stream(2), left(), stream(2))
    assert two == again and two[0] == one[0], (one, two, again)
    await many.close()


asyncio.run(at_once())

# Characters of several tokens come whole, however they are streamed.
emoji = complete("🗼🎉 日本の首都は", max_tokens=12, stream=True)
pieces = [p.choices[0].text for p in emoji]
assert "".join(pieces) == complete("🗼🎉 日本の首都は", max_tokens=12).choices[0].text
print("all checks passed")
