"""The autoregressive model: decoder, style tokens, image tokenizer, backbone families."""
