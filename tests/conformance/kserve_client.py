"""Talks to a running mesh with KServe's own client, unmodified: V1 and V2 over HTTP, and gRPC.

Interface, for whoever starts the mesh:

  environment  MESH_URL     the inference door over HTTP, e.g. http://127.0.0.1:8000
               MESH_GRPC    the same over gRPC, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of a tenant with two models that give back what they get: `plain`, FP32 [-1, -1] from `x` to
                            `y`, and `words`, BYTES [-1, -1] from `x` to `y`; `late` is not ready
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import asyncio
import logging
import os
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = os.environ["MESH_URL"].rstrip("/")
GRPC = os.environ["MESH_GRPC"]
KEY = os.environ["MESH_KEY"]
NUMBERS = np.array([[0.5, -1.25, 3.0], [1e-7, -0.0, 65504.0]], np.float32)
checks = 0


def auth():
    """Headers for one call: new each time, because the client adds its own to the dictionary it is given."""
    return {"authorization": "Bearer " + KEY}


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


async def refused(status, call, text):
    """The call must fail with this status, and its message hold the text: the client shows it only of exact application/json."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        check(error.response.status_code == status, f"{error.response.status_code} instead of {status}: {error}")
        check(text in str(error), f"'{text}' is not in '{error}'")
        return
    raise AssertionError(f"a call that must fail with {status} went through")


async def version_1(client):
    check(await client.is_server_live(URL), "the server says that it is not alive")
    check(await client.is_model_ready(URL, "plain", headers=auth()), "plain is not ready")
    check(not await client.is_model_ready(URL, "late", headers=auth()), "late is ready")
    await refused(404, client.is_model_ready(URL, "none", headers=auth()), "Servable not found for request: Latest(none)")
    rows = NUMBERS.tolist()
    answer = await client.infer(URL, {"instances": rows}, model_name="plain", headers=auth())
    check(np.array_equal(np.array(answer["predictions"], np.float32), NUMBERS), f"rows come back as {answer}")
    named = {"instances": [{"x": row} for row in rows]}
    check(await client.infer(URL, named, model_name="plain", headers=auth()) == answer, "named rows have another answer")
    answer = await client.infer(URL, {"inputs": {"x": rows}}, model_name="plain", headers=auth())
    check(np.array_equal(np.array(answer["outputs"], np.float32), NUMBERS), f"columns come back as {answer}")
    answer = await client.infer(URL, {"instances": [["a", "\u00e4 \u0000"]]}, model_name="words", headers=auth())
    check(answer == {"predictions": [["a", "\u00e4 \u0000"]]}, f"texts come back as {answer}")
    event = {"specversion": "1.0", "id": "7", "source": "test", "type": "ask", "data": {"instances": rows}}
    headers = auth() | {"content-type": "application/cloudevents+json"}
    answer = await client.infer(URL, event, model_name="plain", headers=headers)
    check(answer["id"] == "7" and len(answer["data"]["predictions"]) == 2, f"an event comes back as {answer}")
    await refused(400, client.infer(URL, {"rows": 1}, model_name="plain", headers=auth()), "neither 'instances' nor 'inputs'")
    await refused(501, client.explain(URL, "plain", {"instances": rows}, headers=auth()), "no explainer")
    await refused(401, client.infer(URL, {"instances": rows}, model_name="plain"), "401")


def asked(model, data, datatype, binary):
    tensor = InferInput("x", list(data.shape), datatype)
    tensor.set_data_from_numpy(data, binary_data=binary)
    wanted = [RequestedOutput("y", {"binary_data": binary})]
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="mine", request_outputs=wanted)


async def version_2(client):
    check(await client.is_server_live(URL), "the server says that it is not alive")
    check(await client.is_server_ready(URL), "the server says that it is not ready")
    check(await client.is_model_ready(URL, "plain", headers=auth()), "plain is not ready")
    for model in ["late", "none"]:
        check(not await client.is_model_ready(URL, model, headers=auth()), f"{model} is ready")
    texts = np.array([[b"a", "\u00e4".encode()]], dtype=object)
    for binary in [False, True]:
        response = await client.infer(URL, asked("plain", NUMBERS, "FP32", binary), model_name="plain", headers=auth())
        check(response.id == "mine" and response.model_name == "plain", "the id or the name is lost")
        got = response.outputs[0].as_numpy()
        check(np.array_equal(got, NUMBERS) and got.shape == NUMBERS.shape, f"{got} comes back, binary: {binary}")
        response = await client.infer(URL, asked("words", texts, "BYTES", binary), model_name="words", headers=auth())
        got = [text if isinstance(text, bytes) else text.encode() for text in response.outputs[0].as_numpy().flatten()]
        check(got == list(texts.flatten()), f"{got} comes back, binary: {binary}")
    wrong = asked("plain", NUMBERS.astype(np.float64), "FP64", True)
    await refused(400, client.infer(URL, wrong, model_name="plain", headers=auth()), "data-type is 'FP64'")
    await refused(404, client.infer(URL, wrong, model_name="none", headers=auth()), "Request for unknown model")


async def over_grpc(client):
    metadata = (("authorization", "Bearer " + KEY),)
    check(await client.is_server_live(), "the server says that it is not alive")
    check(await client.is_server_ready(), "the server says that it is not ready")
    check(await client.is_model_ready("plain", headers=metadata), "plain is not ready")
    check(not await client.is_model_ready("late", headers=metadata), "late is ready")
    typed = InferInput("x", list(NUMBERS.shape), "FP32", data=NUMBERS.flatten().tolist())
    for request in [asked("plain", NUMBERS, "FP32", True), InferRequest("plain", [typed])]:
        response = await client.infer(request, headers=metadata)
        got = response.outputs[0].as_numpy()
        check(np.array_equal(got, NUMBERS), f"{got} comes back")
    try:
        await client.infer(asked("none", NUMBERS, "FP32", True), headers=metadata)
        raise AssertionError("a model that is not there answered")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.NOT_FOUND, f"{error.code()}")


async def main():
    logging.disable(logging.ERROR)  # The client logs each refusal with its traceback.
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        await version_1(client)
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        await version_2(client)
    async with InferenceGRPCClient(GRPC) as client:
        await over_grpc(client)
    print(f"conformance: all {checks} checks hold")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
