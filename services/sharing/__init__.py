"""Shares: links that show some studies to all who have them, until they expire or are revoked."""
