"""`ssp-model`: train, convert, inspect, verify, export-onnx."""
