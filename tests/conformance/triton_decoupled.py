"""Talks to a running mesh with NVIDIA's own client, unmodified: decoupled models over tritonclient[grpc], and generate over HTTP.

Interface, for whoever starts the mesh:

  environment  MESH_HTTP    the HTTP door, e.g. 127.0.0.1:8000
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of the tenant that owns the models
               models       repeat_int32 (IN, DELAY, WAIT -> OUT, IDX) as in Triton's example; failing, the same, which fails after
                            two answers; mock_llm (text_input, max_tokens, stream -> text_output); plain, x [-1] -> y [-1] of FP32
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import asyncio
import json
import os
import queue
import urllib.request

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

GRPC = os.environ["MESH_GRPC"]
HTTP = os.environ["MESH_HTTP"]
AUTH = {"authorization": "Bearer " + os.environ["MESH_KEY"]}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def inputs(values, delays=None, wait=0):
    """As in Triton's simple_grpc_custom_repeat example."""
    delays = delays or [0] * len(values)
    of = {
        "IN": np.array(values, np.int32),
        "DELAY": np.array(delays, np.uint32),
        "WAIT": np.array([wait], np.uint32),
    }
    made = []
    for name, data in of.items():
        one = triton.InferInput(name, list(data.shape), "INT32" if name == "IN" else "UINT32")
        one.set_data_from_numpy(data)
        made.append(one)
    return made


def is_final(response):
    return response.parameters["triton_final_response"].bool_param


def the_repeat_example(client):
    """A request for many answers, its results counted by their request."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    values = list(range(100, 150))
    client.async_stream_infer("repeat_int32", inputs(values), request_id="0")
    for at, value in enumerate(values):
        result, error = answers.get(timeout=60)
        check(error is None, f"answer {at}: {error}")
        check(result.as_numpy("OUT")[0] == value and result.as_numpy("IDX")[0] == at, f"answer {at}")
        check(result.get_response().id == "0" and not is_final(result.get_response()), f"answer {at} names its request")
    client.stop_stream()
    check(answers.empty(), "an end that nobody asked for")


def an_end_that_is_asked_for(client):
    """With the empty final response a client knows when each of its requests is done, in whatever order they are."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    counts = {"a": 3, "b": 0, "c": 5}
    for name, count in counts.items():
        client.async_stream_infer(
            "repeat_int32", inputs([7] * count), request_id=name, enable_empty_final_response=True
        )
    got, open_requests = {name: 0 for name in counts}, set(counts)
    while open_requests:
        result, error = answers.get(timeout=60)
        check(error is None, f"{error}")
        response = result.get_response()
        if is_final(response):
            check(len(response.outputs) == 0, "an end has no outputs")
            open_requests.remove(response.id)
        else:
            got[response.id] += 1
    check(got == counts, f"{got} instead of {counts}")
    client.stop_stream()


def an_error_after_answers(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    client.async_stream_infer("failing", inputs([1, 2, 3]), request_id="1")
    for at in range(2):
        result, error = answers.get(timeout=60)
        check(error is None and result.as_numpy("OUT")[0] == at + 1, f"answer {at}: {error}")
    result, error = answers.get(timeout=60)
    check(result is None and "after 2 answers" in str(error), f"error {error}")
    client.async_stream_infer("repeat_int32", inputs([9]), request_id="2")
    result, error = answers.get(timeout=60)
    check(error is None and result.as_numpy("OUT")[0] == 9, f"the stream goes on: {error}")
    client.stop_stream()


def a_stream_that_is_cancelled(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    client.async_stream_infer("repeat_int32", inputs([1] * 1000, [20] * 1000))
    answers.get(timeout=60)
    client.stop_stream(cancel_requests=True)
    cancelled = None
    while cancelled is None:
        _, cancelled = answers.get(timeout=60)
    check("Locally cancelled" in str(cancelled), f"error {cancelled}")


def one_answer_only(client):
    try:
        client.infer("repeat_int32", inputs([1]), headers=AUTH)
        check(False, "a decoupled model answered ModelInfer")
    except InferenceServerException as error:
        check("ModelInfer RPC doesn't support models with decoupled transaction policy" in str(error), f"error {error}")
    config = client.get_model_config("repeat_int32", headers=AUTH).config
    check(config.model_transaction_policy.decoupled, "the configuration says so")
    plain = client.get_model_config("plain", headers=AUTH).config
    check(not plain.model_transaction_policy.decoupled, "a plain model is none")
    stats = client.get_inference_statistics("repeat_int32", headers=AUTH).model_stats[0]
    check(stats.response_stats["0"].success.count > 0, "the statistics count answers")


async def over_asyncio():
    async def requests():
        for name in ("x", "y"):
            yield {
                "model_name": "repeat_int32",
                "inputs": inputs([4, 5]),
                "request_id": name,
                "enable_empty_final_response": True,
            }

    async with triton_aio.InferenceServerClient(GRPC) as client:
        got, ended = {"x": [], "y": []}, set()
        async for result, error in client.stream_infer(requests(), headers=AUTH):
            check(error is None, f"asyncio: {error}")
            response = result.get_response()
            if is_final(response):
                ended.add(response.id)
            else:
                got[response.id].append(int(result.as_numpy("OUT")[0]))
            if len(ended) == 2:
                break
        check(got == {"x": [4, 5], "y": [4, 5]}, f"asyncio: {got}")


def generate():
    """Server-sent events as Triton's own test reads them."""
    body = json.dumps({"text_input": "hello there", "max_tokens": 4, "stream": True}).encode()
    request = urllib.request.Request(f"http://{HTTP}/v2/models/mock_llm/generate_stream", body, AUTH)
    with urllib.request.urlopen(request, timeout=60) as answer:
        check(answer.headers["Content-Type"] == "text/event-stream; charset=utf-8", "the type of the events")
        lines = [line.decode().strip() for line in answer if line.strip()]
    check(all(line.startswith("data: ") for line in lines), f"{lines}")
    texts = [json.loads(line[len("data: ") :])["text_output"] for line in lines]
    check(texts == ["hello", " there", " hello", " there"], f"{texts}")


def main():
    with triton.InferenceServerClient(GRPC) as client:
        the_repeat_example(client)
        an_end_that_is_asked_for(client)
        an_error_after_answers(client)
        a_stream_that_is_cancelled(client)
        one_answer_only(client)
    asyncio.run(over_asyncio())
    generate()
    print(f"conformance: all {checks} checks hold")


main()
