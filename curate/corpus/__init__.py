"""The files of a corpus: layout, shards, tables, ledger, repair, and object stores."""
