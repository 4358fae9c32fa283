"""What prompts are compared with: other ways to adapt one encoder to a domain, trained by the same trainer."""
