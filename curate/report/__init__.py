"""The static report page of a corpus."""
