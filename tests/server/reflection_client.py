"""A client that knows nothing but gRPC reflection. Run with HOST:PORT; prints what the server answered as JSON."""

import json
import sys
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def call(channel: grpc.Channel, pool: DescriptorPool, service: str, method: str, request: dict[str, Any]) -> list[Any]:
    described = pool.FindServiceByName(service).FindMethodByName(method)
    make: Any = channel.unary_stream if described.server_streaming else channel.unary_unary
    invoke = make(
        f"/{service}/{method}",
        request_serializer=GetMessageClass(described.input_type).SerializeToString,
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
    answer = invoke(ParseDict(request, GetMessageClass(described.input_type)()), timeout=30)
    return [MessageToDict(message) for message in (answer if described.server_streaming else [answer])]


def main(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        services = list(database.get_services())
        sampling = {"temperature": 0.0, "maxTokens": 10, "ignoreEos": True}
        prompt = {"input": {"text": "Once"}, "samplingParams": sampling}
        generated = call(channel, pool, "ssp.v1.Generation", "Generate", prompt)
        inputs = [{"text": "GATTACA"}, {"inputIds": {"ids": [0, 1]}}]
        classified = call(channel, pool, "ssp.v1.Classification", "Classify", {"inputs": inputs})
        models = call(channel, pool, "ssp.v1.Models", "ListModels", {})
    assert not any(name.split(".")[0].startswith("ssp") for name in sys.modules), "that was no generic client"
    print(json.dumps({"services": services, "generated": generated, "classified": classified, "models": models}))


if __name__ == "__main__":
    main(sys.argv[1])
