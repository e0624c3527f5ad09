"""Stands in for grpcurl where that is not installed: the same words call the same, with what reflection tells.

Takes of its flags those that the documentation uses: -plaintext, -H 'name: value' (again for each) and -d JSON, then the address, and
`list` or `package.Service/Call`. Prints what is answered as JSON, as grpcurl does. Whatever it does not know is an error.
"""

import argparse
import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT = 30


def arguments():
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-d", default="", dest="data")
    parser.add_argument("address")
    parser.add_argument("what")
    return parser.parse_args()


def main():
    asked = arguments()
    with grpc.insecure_channel(asked.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if asked.what == "list":
            print("\n".join(sorted(database.get_services())))
            return
        service, name = asked.what.split("/")
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(service).methods_by_name[name]
        if method.client_streaming or method.server_streaming:
            sys.exit(f"{asked.what} is a stream")
        request = message_factory.GetMessageClass(method.input_type)()
        json_format.Parse(asked.data or "{}", request)
        metadata = []
        for header in asked.headers:
            key, value = header.split(":", 1)
            metadata.append((key.strip().lower(), value.strip()))
        call = channel.unary_unary(
            f"/{asked.what}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        answer = call(request, metadata=metadata, timeout=TIMEOUT)
        print(json.dumps(json_format.MessageToDict(answer), indent=2))


main()
