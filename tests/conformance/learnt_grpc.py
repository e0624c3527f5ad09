"""A client that learns every service, call and message from the server itself, and then calls it.

Nothing here was generated from a .proto file. MESH_GRPC is the door's address, MESH_KEY a key, MESH_MODEL a model of one FP32
vector `x` that is answered as `y`.
"""

import os
import struct

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ADDRESS = os.environ["MESH_GRPC"]
MODEL = os.environ["MESH_MODEL"]
AUTH = (("authorization", "Bearer " + os.environ["MESH_KEY"]),)
SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
NUMBERS = [1.5, -2.25]
TIMEOUT = 30
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


class Server:
    """Calls by their names, with what reflection says about them."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return set(self.database.get_services())

    def method(self, service, name):
        return self.pool.FindServiceByName(service).methods_by_name[name]

    def message(self, descriptor, fields):
        return json_format.ParseDict(fields, message_factory.GetMessageClass(descriptor)())

    def stub(self, service, name):
        method = self.method(service, name)
        answer = message_factory.GetMessageClass(method.output_type)
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        make = kinds[(method.client_streaming, method.server_streaming)]
        path = f"/{service}/{name}"
        return make(path, request_serializer=lambda one: one.SerializeToString(), response_deserializer=answer.FromString)

    def ask(self, service, name, fields, metadata=()):
        request = self.message(self.method(service, name).input_type, fields)
        return self.stub(service, name)(request, metadata=metadata, timeout=TIMEOUT)


def refused(code, call):
    try:
        call()
    except grpc.RpcError as error:
        check(error.code() == code, f"{error.code()} instead of {code}: {error.details()}")
        check(error.details(), "a refusal without a reason")
        return
    raise AssertionError(f"a call that must fail with {code} went through")


def everything_is_described(server):
    services = server.services()
    for service in (SERVICE, HEALTH):
        check(service in services, f"{service} is not among {services}")
    for service in services:
        descriptor = server.pool.FindServiceByName(service)
        check(descriptor.methods, f"{service} has no calls")
        for method in descriptor.methods:
            for side in (method.input_type, method.output_type):
                found = server.pool.FindMessageTypeByName(side.full_name)
                check(found.full_name == side.full_name, f"{side.full_name} is not described")
    infer = server.method(SERVICE, "ModelInfer").input_type
    numbers = {field.name: field.number for field in infer.fields}
    wanted = {"model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "inputs": 5, "outputs": 6, "raw_input_contents": 7}
    check(numbers == wanted, f"fields {numbers}")


def health(server):
    check(server.ask(SERVICE, "ServerLive", {}).live, "not live")
    check(server.ask(SERVICE, "ServerReady", {}).ready, "not ready")
    for service in ("", SERVICE):
        status = server.ask(HEALTH, "Check", {"service": service})
        check(json_format.MessageToDict(status)["status"] == "SERVING", f"health of '{service}': {status}")
    watch = server.ask(HEALTH, "Watch", {"service": ""})
    check(json_format.MessageToDict(next(watch))["status"] == "SERVING", "watched health")
    watch.cancel()
    refused(grpc.StatusCode.NOT_FOUND, lambda: server.ask(HEALTH, "Check", {"service": "none"}))


def metadata(server):
    extensions = server.ask(SERVICE, "ServerMetadata", {}).extensions
    check("parameters" in extensions, f"extensions {extensions}")
    told = server.ask(SERVICE, "ModelMetadata", {"name": MODEL}, AUTH)
    check((told.name, list(told.versions)) == (MODEL, ["1"]), f"metadata {told}")
    one = told.inputs[0]
    check((one.name, one.datatype, list(one.shape)) == ("x", "FP32", [-1, -1]), f"input {one}")
    check(server.ask(SERVICE, "ModelReady", {"name": MODEL, "version": "1"}, AUTH).ready, "the model is not ready")
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: server.ask(SERVICE, "ModelMetadata", {"name": MODEL}))
    refused(grpc.StatusCode.NOT_FOUND, lambda: server.ask(SERVICE, "ModelMetadata", {"name": "none"}, AUTH))


def requests(server):
    """The same request with typed and with raw contents."""
    tensor = {"name": "x", "datatype": "FP32", "shape": ["1", "2"]}
    typed = {"modelName": MODEL, "id": "7", "inputs": [{**tensor, "contents": {"fp32Contents": NUMBERS}}]}
    descriptor = server.method(SERVICE, "ModelInfer").input_type
    raw = server.message(descriptor, {"modelName": MODEL, "id": "7", "inputs": [tensor]})
    raw.raw_input_contents.append(struct.pack("<2f", *NUMBERS))
    return server.message(descriptor, typed), raw


def answered(answer):
    check(answer.id == "7" and answer.model_version == "1", f"answer {answer}")
    output = answer.outputs[0]
    check((output.name, output.datatype, list(output.shape)) == ("y", "FP32", [1, 2]), f"output {output}")
    check(list(struct.unpack("<2f", answer.raw_output_contents[0])) == NUMBERS, f"answer {answer}")


def inference(server):
    infer = server.stub(SERVICE, "ModelInfer")
    for request in requests(server):
        answered(infer(request, metadata=AUTH, timeout=TIMEOUT))
    stream = server.stub(SERVICE, "ModelStreamInfer")
    for answer in stream(iter(requests(server)), metadata=AUTH, timeout=TIMEOUT):
        check(not answer.error_message, answer.error_message)
        answered(answer.infer_response)
    typed, raw = requests(server)
    typed.raw_input_contents.extend(raw.raw_input_contents)
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: infer(typed, metadata=AUTH, timeout=TIMEOUT))


def main():
    with grpc.insecure_channel(ADDRESS) as channel:
        server = Server(channel)
        everything_is_described(server)
        health(server)
        metadata(server)
        inference(server)
    print(f"conformance: all {checks} checks hold")


main()
