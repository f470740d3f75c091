"""Heads: features of the encoder's stages to logits, one file a kind."""
