"""From logits to text: choosing tokens, generating fast, judging what was written."""
