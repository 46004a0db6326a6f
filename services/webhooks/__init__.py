"""Webhooks: events of studies, posted to receivers outside."""
