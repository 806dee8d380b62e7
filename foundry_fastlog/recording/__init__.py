"""The Recorder: with the readers the only room that imports the extension."""
