"""What a person looks at: tables, curves and lines on a terminal."""
