"""The audit: proves a finished corpus."""
