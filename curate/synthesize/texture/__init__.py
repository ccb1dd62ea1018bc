"""What the synthesisers that transfer texture without weights share."""
