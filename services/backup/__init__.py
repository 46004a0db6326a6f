"""Backups: a folder for each, of everything that the embedded stores hold."""
