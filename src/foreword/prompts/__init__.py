"""Prompts for a frozen encoder: their parameters, how a backbone carries them, and how they are stored."""
