"""GuideLLM's report (https://github.com/vllm-project/guidellm), version 2 of its schema as GuideLLM 0.8 writes it."""
