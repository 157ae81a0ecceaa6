"""Write models for other runtimes: ONNX files of matchers, extractors and pipelines."""
