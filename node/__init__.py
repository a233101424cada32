"""The node: DICOM in, DICOM-SEG and a structured report out."""
