"""gRPC of the Open Inference Protocol: a gateway that asks the endpoint over HTTP."""
