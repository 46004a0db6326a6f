"""Reads the index: lists with filters, orders and keyset pages, study trees, headers."""
