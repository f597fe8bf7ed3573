"""From texts to ids: corpora, cleaning, tokenizers, windows of ids."""
