"""Transfer: a retriever for a domain without labels, from the prompts of others."""
