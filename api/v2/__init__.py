"""Open Inference Protocol, version 2, below /v2: the protocol of Triton and KServe, so that their clients work unchanged.

    POST …/infer ──body──▶ JSON and binary data ──tensors──▶ one image a row ──batch_form──▶ BatchSubmissions ──outputs──▶ answer

The required part is after https://github.com/kserve/open-inference-protocol. The extensions for binary tensors, classification,
schedule policy and the model repository are after docs/protocol in https://github.com/triton-inference-server/server.
"""
