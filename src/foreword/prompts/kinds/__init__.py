"""The kinds of prompts, a file each: all that a kind is stands there, and everything else asks it."""
