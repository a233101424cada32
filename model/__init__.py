"""Networks, their weights and their measures. Arrays with affines in, arrays out: nothing here knows DICOM."""
