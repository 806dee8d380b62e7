"""What people look at: tables, curves and lines on a terminal."""
