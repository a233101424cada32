"""DICOM objects read and written; the owner of highdicom."""
