"""What a report is made of, whatever it reports: a document, its look, its charts, settings in words."""
