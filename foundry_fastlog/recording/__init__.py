"""The Recorder. Only this package and the readers import the extension."""
