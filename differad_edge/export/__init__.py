"""From a student's checkpoint to files that run without PyTorch: ONNX graphs, and the proof that they agree."""
