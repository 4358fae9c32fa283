"""Training prompts: one path for multitask and domain prompts, on sentence-transformers' trainer."""
