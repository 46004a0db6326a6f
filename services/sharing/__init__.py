"""Shares: links that show some studies to whoever has them, until they expire or are revoked."""
