"""Importing folders: walk, send what is not there yet, keep a journal, report."""
