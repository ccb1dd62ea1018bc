"""What lies on disk: layout, shards, tables, ledger, manifest, repair, and object stores."""
