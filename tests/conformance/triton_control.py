"""Talks to a running mesh with NVIDIA's own client, unmodified: models of a repository are loaded and unloaded over HTTP and gRPC.

Interface, for whoever starts the mesh, with --compat triton, --model-control-mode explicit and on this machine:

  environment  MESH_HTTP    the HTTP door, e.g. 127.0.0.1:8000
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_OTHER   an API key of a tenant to whom the repository does not belong; the script itself shows none
               MESH_FILE    a TorchScript file that multiplies rows of three numbers by ten
               repository   simple, max_batch_size 8, INT32 INPUT0 [16] and INPUT1 [16] -> OUTPUT0 [16], their sum, and OUTPUT1 [16];
                            scale, PyTorch, max_batch_size 8, FP32 INPUT__0 [3] -> OUTPUT__0 [3], twice the input;
                            chain, an ensemble, max_batch_size 8, FP32 IN [3] -> OUT [3], whose one step is scale;
                            nothing is loaded
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import json
import os
import time

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

OTHER = {"authorization": "Bearer " + os.environ["MESH_OTHER"]}
PATIENCE_SECONDS = 60
INVALID, MISSING, NOT_READY = ("400", "INVALID_ARGUMENT"), ("404", "NOT_FOUND"), ("503", "UNAVAILABLE")
SENT = {
    "platform": "pytorch_libtorch",
    "max_batch_size": 16,
    "input": [{"name": "INPUT__0", "data_type": "TYPE_FP32", "dims": [3]}],
    "output": [{"name": "OUTPUT__0", "data_type": "TYPE_FP32", "dims": [3]}],
}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def refused(statuses, call, *texts):
    """The call must fail with one of these, and its message hold the texts."""
    try:
        call()
    except InferenceServerException as error:
        check(any(status in str(error.status()) for status in statuses), f"status {error.status()}: {error}")
        for text in texts:
            check(text in error.message(), f"'{text}' is not in '{error.message()}'")
        return
    raise AssertionError(f"a call that must fail with {texts} went through")


def index(client, headers=None):
    """The state of each model and why it is so."""
    told = client.get_model_repository_index(headers=headers)
    if isinstance(told, list):
        return {entry["name"]: (entry["state"], entry.get("reason", "")) for entry in told}
    return {entry.name: (entry.state, entry.reason) for entry in told.models}


def most_rows(client, name):
    told = client.get_model_config(name)
    return told["max_batch_size"] if isinstance(told, dict) else told.config.max_batch_size


def sums(wire, client, rows=1):
    """What simple makes of two inputs."""
    data = np.arange(rows * 16, dtype=np.int32).reshape([rows, 16])
    inputs = [wire.InferInput(name, [rows, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for one in inputs:
        one.set_data_from_numpy(data)
    return np.array_equal(client.infer("simple", inputs).as_numpy("OUTPUT0"), data + data)


def times(wire, client, name, source, target):
    """What a model multiplies by."""
    one = wire.InferInput(source, [1, 3], "FP32")
    one.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
    answer = client.infer(name, [one]).as_numpy(target)
    check(np.array_equal(answer, answer[0][0] * np.array([[1, 2, 3]], np.float32)), f"{name}: {answer}")
    return answer[0][0]


def is_gone(client, *names):
    """It leads nowhere at once; what is on the device may still be on its way from there."""
    for name in names:
        check(not client.is_model_ready(name), f"{name} is ready")
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        states = {index(client)[name] for name in names}
        if states == {("UNAVAILABLE", "unloaded")}:
            return check(True, "")
        if time.monotonic() > until:
            return check(False, f"{names} are {states}")
        time.sleep(0.05)


def a_model_comes_is_changed_and_goes(wire, client):
    client.load_model("simple")
    check(client.is_model_ready("simple"), "simple is not ready")
    check(index(client)["simple"] == ("READY", ""), f"index {index(client)}")
    check(most_rows(client, "simple") == 8, "what the repository says")
    check(sums(wire, client), "simple adds")

    # A protobuf's JSON has whole numbers as texts, too. What is sent stands until the next load.
    client.load_model("simple", config=json.dumps({"max_batch_size": "16"}))
    check(most_rows(client, "simple") == 16, f"max_batch_size {most_rows(client, 'simple')}")
    check(sums(wire, client, 16), "simple adds sixteen rows")
    refused(INVALID, lambda: sums(wire, client, 17), "batch-size must be <= 16 for 'simple'")
    for config in ("{", '{"max_batch_size": "many"}', '{"backend": "onnxruntime"}'):
        refused(INVALID, lambda: client.load_model("simple", config=config), "failed to load 'simple'")
    check(most_rows(client, "simple") == 16, "a load that failed changed something")
    client.load_model("simple")
    check(most_rows(client, "simple") == 8, "the repository's own again")
    refused(INVALID, lambda: sums(wire, client, 9), "batch-size must be <= 8 for 'simple'")

    client.unload_model("simple")
    is_gone(client, "simple")
    refused(NOT_READY, lambda: sums(wire, client), "model 'simple' version 1 is not ready")
    client.load_model("simple")
    check(sums(wire, client), "simple is back")
    client.unload_model("simple")
    is_gone(client, "simple")


def files_are_sent(wire, client):
    with open(os.environ["MESH_FILE"], "rb") as file:
        files = {"file:1/model.pt": file.read()}
    scale = lambda: times(wire, client, "scale", "INPUT__0", "OUTPUT__0")
    client.load_model("scale", config=json.dumps(SENT), files=files)
    check(scale() == 10, "the file that was sent")
    check(most_rows(client, "scale") == 16, "the configuration that was sent")
    refused(INVALID, lambda: client.load_model("scale", files=files), "files need the parameter 'config'")
    broken = {"file:1/model.pt": b"no model"}
    refused(INVALID, lambda: client.load_model("scale", config=json.dumps(SENT), files=broken), "failed to load 'scale'")
    check(scale() == 10, "a load that failed changed something")
    client.load_model("scale")
    check(scale() == 2 and most_rows(client, "scale") == 8, "the repository's own again")
    client.unload_model("scale")
    is_gone(client, "scale")
    refused(NOT_READY, scale, "model 'scale' version 1 is not ready")


def an_ensemble_brings_its_step_and_takes_it_along(wire, client):
    chain = lambda: times(wire, client, "chain", "IN", "OUT")
    client.load_model("chain")
    check(index(client)["scale"] == ("READY", ""), f"index {index(client)}")
    check(chain() == 2, "chain goes through scale")
    client.unload_model("chain")
    is_gone(client, "chain")
    check(client.is_model_ready("scale"), "scale was taken along though nobody asked for that")
    client.load_model("chain")
    check(chain() == 2, "chain is back")
    client.unload_model("chain", unload_dependents=True)
    is_gone(client, "chain", "scale")
    refused(NOT_READY, chain, "model 'chain' version 1 is not ready")


def what_is_not_there(client):
    refused(MISSING, lambda: client.load_model("unknown"), "failed to load 'unknown'")
    refused(MISSING, lambda: client.unload_model("unknown"), "failed to unload 'unknown'")
    # To another tenant nothing is.
    check(index(client, dict(OTHER)) == {}, "another tenant sees models")
    for name in ("simple", "unknown"):
        for call in (client.load_model, client.unload_model):
            refused(MISSING, lambda: call(name, headers=dict(OTHER)), "unknown model")


def main():
    doors = ((over_http, os.environ["MESH_HTTP"], "not loaded"), (over_grpc, os.environ["MESH_GRPC"], "unloaded"))
    for wire, address, reason in doors:
        client = wire.InferenceServerClient(address)
        try:
            wanted = {name: ("UNAVAILABLE", reason) for name in ("chain", "scale", "simple")}
            check(index(client) == wanted, f"index {index(client)}")
            server = client.get_server_metadata()
            extensions = server["extensions"] if isinstance(server, dict) else server.extensions
            check("model_repository(unload_dependents)" in extensions, f"extensions {extensions}")
            a_model_comes_is_changed_and_goes(wire, client)
            files_are_sent(wire, client)
            an_ensemble_brings_its_step_and_takes_it_along(wire, client)
            what_is_not_there(client)
        finally:
            client.close()
    print(f"conformance: all {checks} checks hold")


main()
