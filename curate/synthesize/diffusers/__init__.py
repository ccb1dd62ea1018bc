"""What the synthesisers that run a diffusers pipeline share."""
