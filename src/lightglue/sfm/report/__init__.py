"""What a map looks like: report, pictures, viewer."""
