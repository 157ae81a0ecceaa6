"""Pictures, charts and report pages."""
