"""From ids to logits: the GPT, its parts, and the encoder and decoder beside it."""
