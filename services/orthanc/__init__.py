"""Orthanc's REST API: one method per route used, answers as dataclasses, errors translated."""
