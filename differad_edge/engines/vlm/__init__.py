"""Vision-language models in this process."""
