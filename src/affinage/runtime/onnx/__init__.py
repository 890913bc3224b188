"""Models as ONNX graphs: built, compared with the original, kept in folders that need no torch, and run."""
