"""Prompts, mixtures and banks to the Hugging Face hub and from it."""
