"""What stands around the node in a demo or a test: a modality that sends and an archive that keeps."""
