"""The built-in styles: one ONNX file and one card (`.md`) each."""
