"""A Qwen2-VL of a few million parameters with pairs of its own: the whole training on a CPU, in minutes."""
