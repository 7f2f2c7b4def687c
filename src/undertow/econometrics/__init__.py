"""Estimators on plain arrays, one subject a file; each returns a frozen fit."""
